//! One resource, page by page.

use std::collections::HashSet;

use kube::Client;
use kube::api::ListParams;
use kube::core::Request;
use serde::Deserialize;
use serde_json::Value;

use super::discovery::Resource;
use crate::retry;

/// Objects of a page at most.
const MAX_PAGE: u32 = 250;
/// Objects of the first page: their size says how many the next may have.
const FIRST_PAGE: u32 = 50;
/// Bytes that a page should have at most, as JSON: objects of a megabyte each come a few at a time.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// How often a list whose token expired is begun anew.
const MAX_RESTARTS: u32 = 5;

/// Objects of one resource in one namespace (or of the whole cluster), page by page.
///
/// When the server has forgotten the list's version (410), the list begins anew at the present one, and objects that were
/// handed out already are passed over: each object is handed out once. Memory: one page, and the names so far, as the
/// directory that they are written to has them too.
pub struct Listing<'a> {
    client: &'a Client,
    path: String,
    label_selector: Option<String>,
    next: Option<String>,
    page: u32,
    restarts: u32,
    seen: HashSet<String>,
    ended: bool,
}

#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    #[serde(default)]
    items: Option<Vec<Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PageMetadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

impl<'a> Listing<'a> {
    /// A listing that has not begun. The selector is Kubernetes' own text form.
    #[must_use]
    pub fn new(
        client: &'a Client,
        resource: &Resource,
        namespace: Option<&str>,
        label_selector: Option<String>,
    ) -> Self {
        Self {
            client,
            path: resource.collection(namespace),
            label_selector: label_selector.filter(|selector| !selector.is_empty()),
            next: None,
            page: FIRST_PAGE,
            restarts: 0,
            seen: HashSet::new(),
            ended: false,
        }
    }

    /// The next page; `None` after the last. A page may be empty.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, kube::Error> {
        while !self.ended {
            match retry::call(|| self.request()).await {
                Ok((page, bytes)) => return Ok(Some(self.accept(page, bytes))),
                Err(kube::Error::Api(status))
                    if status.code == 410 && self.next.is_some() && self.restarts < MAX_RESTARTS =>
                {
                    tracing::info!(path = self.path, "the list's version has expired: beginning anew");
                    self.restarts += 1;
                    self.next = None;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn request(&self) -> Result<(Page, usize), kube::Error> {
        let parameters = ListParams {
            label_selector: self.label_selector.clone(),
            limit: Some(self.page),
            continue_token: self.next.clone(),
            ..ListParams::default()
        };
        let request = Request::new(&self.path).list(&parameters).map_err(kube::Error::BuildRequest)?;
        let text = self.client.request_text(request).await?;
        let page = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
        Ok((page, text.len()))
    }

    fn accept(&mut self, page: Page, bytes: usize) -> Vec<Value> {
        self.next = page.metadata.next.filter(|token| !token.is_empty());
        self.ended = self.next.is_none();
        let mut items = page.items.unwrap_or_default();
        self.page = page_size(bytes, items.len());
        items.retain(|item| {
            item.pointer("/metadata/name").and_then(Value::as_str).is_some_and(|name| self.seen.insert(name.to_owned()))
        });
        items
    }
}

/// How many objects of this size the next page may have.
fn page_size(bytes: usize, items: usize) -> u32 {
    let each = bytes / items.max(1);
    ((PAGE_BYTES / each.max(1)) as u32).clamp(1, MAX_PAGE)
}

#[cfg(test)]
mod tests {
    use http::{Request as HttpRequest, Response};
    use kube::client::Body;
    use serde_json::json;
    use tower_test::mock::{self, Handle};

    use super::*;

    fn resource() -> Resource {
        Resource {
            group: String::new(),
            version: "v1".to_owned(),
            plural: "configmaps".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespaced: true,
        }
    }

    fn page(names: &[&str], next: Option<&str>) -> (u16, Value) {
        let items: Vec<_> = names.iter().map(|name| json!({"metadata": {"name": name}})).collect();
        (200, json!({"metadata": {"continue": next}, "items": items}))
    }

    fn expired() -> (u16, Value) {
        (410, json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}))
    }

    /// Answers each request with the next of the answers; gives back the queries that were asked.
    async fn answer(mut handle: Handle<HttpRequest<Body>, Response<Body>>, answers: Vec<(u16, Value)>) -> Vec<String> {
        let mut queries = Vec::new();
        for (status, body) in answers {
            let (request, send) = handle.next_request().await.unwrap();
            queries.push(request.uri().query().unwrap_or_default().to_owned());
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            send.send_response(Response::builder().status(status).body(body).unwrap());
        }
        queries
    }

    async fn list_all(answers: Vec<(u16, Value)>) -> (Vec<String>, Vec<String>) {
        let (service, handle) = mock::pair::<HttpRequest<Body>, Response<Body>>();
        let client = Client::new(service, "default");
        let server = tokio::spawn(answer(handle, answers));
        let mut listing = Listing::new(&client, &resource(), Some("shop"), Some("a=b".to_owned()));
        let mut names = Vec::new();
        while let Some(items) = listing.next().await.unwrap() {
            names.extend(items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()));
        }
        (names, server.await.unwrap())
    }

    #[tokio::test]
    async fn every_page_is_asked_for_with_the_selector() {
        let (names, queries) = list_all(vec![page(&["a", "b"], Some("t")), page(&["c"], None)]).await;
        assert_eq!(names, ["a", "b", "c"]);
        assert!(queries.iter().all(|query| query.contains("labelSelector=a%3Db")), "{queries:?}");
        assert!(queries[1].contains("continue=t"), "{queries:?}");
    }

    #[tokio::test]
    async fn an_expired_list_begins_anew_and_hands_out_each_object_once() {
        let answers = vec![page(&["a", "b"], Some("t")), expired(), page(&["a", "b"], Some("u")), page(&["c"], None)];
        let (names, queries) = list_all(answers).await;
        assert_eq!(names, ["a", "b", "c"]);
        assert!(!queries[2].contains("continue="), "{queries:?}");
    }

    #[tokio::test]
    async fn a_list_that_expires_again_and_again_fails() {
        let (service, handle) = mock::pair::<HttpRequest<Body>, Response<Body>>();
        let client = Client::new(service, "default");
        let mut answers = Vec::new();
        for _ in 0..=MAX_RESTARTS {
            answers.extend([page(&["a"], Some("t")), expired()]);
        }
        let server = tokio::spawn(answer(handle, answers));
        let resource = resource();
        let mut listing = Listing::new(&client, &resource, Some("shop"), None);
        let error = loop {
            match listing.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the list ended"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, kube::Error::Api(status) if status.code == 410));
        server.await.unwrap();
    }

    #[test]
    fn large_objects_come_a_few_at_a_time() {
        assert_eq!(page_size(50 * 1024, 50), MAX_PAGE);
        assert_eq!(page_size(50 * 1024 * 1024, 50), 4);
        assert_eq!(page_size(100 * 1024 * 1024, 1), 1);
        assert_eq!(page_size(0, 0), MAX_PAGE);
    }
}
