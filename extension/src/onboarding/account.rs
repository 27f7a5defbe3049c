//! Tokens of the restricted account with which the garden side works in a cluster.

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use shoot_backup_api::names;

use super::Error;
use crate::connections;
use crate::kubeconfig::Endpoint;
use crate::request::timed;

/// Life of a token.
const EXPIRATION_SECONDS: i64 = 3600;

/// A client with a new token, and when that has to be renewed.
pub struct Account {
    /// The client.
    pub client: Client,
    /// When its token has to be renewed.
    pub renew_at: Timestamp,
}

/// Requests a token with a client that may: the administrative one at first, later the restricted one itself.
pub async fn connect(with: &Client, endpoint: &Endpoint, now: Timestamp) -> Result<Account, Error> {
    let api: Api<ServiceAccount> = Api::namespaced(with.clone(), names::AGENT_NAMESPACE);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(EXPIRATION_SECONDS), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let what = format!("request a token for ServiceAccount {}/{}", names::AGENT_NAMESPACE, names::GARDEN_ACCOUNT);
    let answer = timed(what, api.create_token_request(names::GARDEN_ACCOUNT, &PostParams::default(), &request))
        .await
        .map_err(Error::Cluster)?;
    let status = answer.status.filter(|status| !status.token.is_empty());
    let status = status.ok_or(Error::NoToken(names::GARDEN_ACCOUNT))?;
    // The server may give another life than was asked for.
    let renew_at = connections::renew_at(now, status.expiration_timestamp.0);
    let client = endpoint.with_token(status.token).map_err(Error::Client)?;
    Ok(Account { client, renew_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    #[tokio::test]
    async fn a_token_of_the_restricted_account_is_requested_and_nothing_is_stored() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let admin = Client::new(service, "default");
        let server = tokio::spawn(async move {
            let (request, send) = handle.next_request().await.unwrap();
            assert_eq!(request.method(), Method::POST);
            assert_eq!(
                request.uri().path(),
                "/api/v1/namespaces/shoot-backup/serviceaccounts/shoot-backup-garden/token"
            );
            let body: Value = serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
            assert_eq!(body["spec"]["expirationSeconds"], 3600);
            let mut answer = body.clone();
            answer["status"] = json!({"token": "t", "expirationTimestamp": "1970-01-01T01:00:00Z"});
            send.send_response(Response::new(Body::from(answer.to_string().into_bytes())));
            assert!(handle.next_request().await.is_none());
        });
        let endpoint = crate::kubeconfig::tests_support::endpoint();
        let account = connect(&admin, &endpoint, Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!(account.renew_at, Timestamp::from_second(2880).unwrap());
        drop(admin);
        server.await.unwrap();
    }
}
