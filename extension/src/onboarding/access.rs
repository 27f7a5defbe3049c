//! Administrative access to a cluster, for as long as one reconciliation needs it.

use base64::Engine as _;
use http::Request;
use kube::{Client, ResourceExt};
use serde::Deserialize;
use serde_json::json;

use super::Error;
use super::target::Target;
use crate::context::Context;
use crate::discovery::foreign;
use crate::kubeconfig::{self, Access};
use crate::request::timed;

/// Life of the kubeconfig: the shortest that Gardener gives.
/// Source: Gardener, `pkg/apis/authentication/validation`.
const EXPIRATION_SECONDS: i64 = 600;

/// The answer to an `AdminKubeconfigRequest`. It has no `Debug`: it is a credential.
#[derive(Deserialize)]
struct AdminKubeconfig {
    status: Option<AdminKubeconfigStatus>,
}

#[derive(Deserialize)]
struct AdminKubeconfigStatus {
    kubeconfig: Option<String>,
}

/// Gets administrative access.
pub async fn administrative(target: &Target, namespace: &str, context: &Context) -> Result<Access, Error> {
    let (of, text) = match target {
        Target::Shoot { garden, shoot, .. } => {
            let shoot_namespace = shoot.namespace().unwrap_or_default();
            let name = shoot.name_any();
            (format!("Shoot {shoot_namespace}/{name}"), admin_kubeconfig(garden, &shoot_namespace, &name).await?)
        }
        Target::Standalone(reference) => {
            let text = foreign::read_secret(context, namespace, reference).await?;
            (format!("Secret {}", reference.name), text)
        }
    };
    let failed = |source| Error::Kubeconfig { of: of.clone(), source };
    kubeconfig::check(&text).map_err(failed)?.connect(&context.roots).await.map_err(failed)
}

/// Requests a kubeconfig for a Shoot.
pub async fn admin_kubeconfig(garden: &Client, namespace: &str, shoot: &str) -> Result<String, Error> {
    let body = json!({
        "apiVersion": "authentication.gardener.cloud/v1alpha1",
        "kind": "AdminKubeconfigRequest",
        "spec": {"expirationSeconds": EXPIRATION_SECONDS},
    });
    let request = Request::post(format!(
        "/apis/core.gardener.cloud/v1beta1/namespaces/{namespace}/shoots/{shoot}/adminkubeconfig"
    ))
    .header(http::header::CONTENT_TYPE, "application/json")
    .body(body.to_string().into_bytes())
    .map_err(|error| Error::Access(crate::request::Error::new("build a request", kube::Error::HttpError(error))))?;
    let what = format!("get administrative access to Shoot {namespace}/{shoot}");
    let answer: AdminKubeconfig = timed(what, garden.request(request)).await.map_err(Error::Access)?;
    let encoded = answer.status.and_then(|status| status.kubeconfig);
    let decoded = encoded.and_then(|encoded| base64::engine::general_purpose::STANDARD.decode(encoded).ok());
    decoded
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Error::NoKubeconfig(format!("{namespace}/{shoot}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, Response};
    use kube::client::Body;

    #[tokio::test]
    async fn access_is_asked_for_with_the_shortest_life() {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let garden = Client::new(service, "default");
        let server = tokio::spawn(async move {
            let (request, send) = handle.next_request().await.unwrap();
            assert_eq!(request.method(), Method::POST);
            assert_eq!(
                request.uri().path(),
                "/apis/core.gardener.cloud/v1beta1/namespaces/garden-demo/shoots/alpha/adminkubeconfig"
            );
            let body: serde_json::Value =
                serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
            assert_eq!(body["kind"], "AdminKubeconfigRequest");
            assert_eq!(body["spec"]["expirationSeconds"], 600);
            let encoded = base64::engine::general_purpose::STANDARD.encode("kind: Config");
            let answer = json!({"status": {"kubeconfig": encoded}}).to_string();
            send.send_response(Response::builder().status(201).body(Body::from(answer.into_bytes())).unwrap());
            // Nothing else is asked, above all nothing is written.
            assert!(handle.next_request().await.is_none());
        });
        let text = admin_kubeconfig(&garden, "garden-demo", "alpha").await.unwrap();
        assert_eq!(text, "kind: Config");
        drop(garden);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_without_a_kubeconfig_is_an_error_that_names_the_shoot() {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let garden = Client::new(service, "default");
        tokio::spawn(async move {
            let (_, send) = handle.next_request().await.unwrap();
            send.send_response(Response::new(Body::from(b"{}".to_vec())));
        });
        let error = admin_kubeconfig(&garden, "garden-demo", "alpha").await.unwrap_err();
        assert!(error.is_kubeconfig());
        assert!(error.to_string().contains("garden-demo/alpha"), "{error}");
    }
}
