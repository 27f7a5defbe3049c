//! The token endpoint: what Entra ID grants and how it refuses.

use http::StatusCode;
use serde_json::{Value, json};
use shoot_backup_azure_emulator::{FederatedCredential, Operation, Settings};

use crate::azurite_process::azurite;
use crate::issuer::{Issuer, IssuerKey};
use crate::landscape::{CLIENT, Landscape, TENANT, credential, form};

/// Status, OAuth error and the code of `AADSTS…`, which must be the same in words and number.
fn refused((status, answer): (StatusCode, Value)) -> (u16, String, u64, String) {
    let code = answer["error_codes"][0].as_u64().expect("an error code");
    let description = answer["error_description"].as_str().unwrap().to_owned();
    assert!(description.starts_with(&format!("AADSTS{code}: ")), "{description}");
    for field in ["trace_id", "correlation_id", "timestamp"] {
        assert!(description.contains(answer[field].as_str().unwrap()), "{field} is not in {description}");
    }
    assert_eq!(answer["error_uri"], format!("https://login.microsoftonline.com/error?code={code}"));
    (status.as_u16(), answer["error"].as_str().unwrap().to_owned(), code, description)
}

fn changed(landscape: &Landscape, field: &str, value: Value) -> String {
    let mut claims = landscape.issuer.claims();
    claims[field] = value;
    landscape.issuer.key.sign(&claims)
}

#[tokio::test]
async fn a_federated_assertion_is_exchanged_for_a_token_with_the_claims_of_entra() {
    let landscape = Landscape::with_role(None).await;
    let (status, answer) = landscape.exchange(TENANT, CLIENT, &landscape.issuer.token()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(3600)));
    let token = answer["access_token"].as_str().unwrap();
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(token).unwrap().claims;
    assert_eq!(claims["iss"], format!("https://sts.windows.net/{TENANT}/"));
    assert_eq!(claims["aud"], "https://storage.azure.com");
    assert_eq!((&claims["appid"], &claims["tid"]), (&json!(CLIENT), &json!(TENANT)));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert_eq!(claims["oid"], landscape.admin.identity(CLIENT).await.unwrap().object_id);
    assert_eq!(landscape.admin.requests().await.unwrap().of(Operation::Token), 1);
}

#[tokio::test]
async fn tenant_and_client_are_checked_before_the_assertion() {
    let landscape = Landscape::with_role(None).await;
    let unknown = refused(landscape.exchange("no-such-tenant", CLIENT, "rubbish").await);
    assert_eq!((unknown.0, unknown.1.as_str(), unknown.2), (400, "invalid_request", 90_002));
    assert!(unknown.3.contains("Tenant 'no-such-tenant' not found"));
    let unknown = refused(landscape.exchange(TENANT, "no-such-client", "rubbish").await);
    assert_eq!((unknown.0, unknown.1.as_str(), unknown.2), (400, "unauthorized_client", 700_016));
    landscape.admin.put_identity("other-client", "other-tenant", "other").await.unwrap();
    let elsewhere = refused(landscape.exchange("other-tenant", CLIENT, &landscape.issuer.token()).await);
    assert_eq!(elsewhere.2, 700_016);
}

#[tokio::test]
async fn a_malformed_assertion_and_a_wrong_form_are_told_apart() {
    let landscape = Landscape::with_role(None).await;
    assert_eq!(refused(landscape.exchange(TENANT, CLIENT, "not.a.jwt").await).2, 50_027);
    let cases = [
        ("grant_type", "password", 70_003),
        ("client_assertion_type", "urn:other", 7_000_216),
        ("scope", "https://storage.azure.com/user_impersonation", 1_002_012),
        ("scope", "https://vault.azure.net/.default", 500_011),
    ];
    for (field, value, code) in cases {
        let mut form = form(CLIENT, &landscape.issuer.token());
        form.iter_mut().find(|(name, _)| *name == field).unwrap().1 = value.to_owned();
        assert_eq!(refused(landscape.exchange_form(TENANT, &form).await).2, code, "{field}={value}");
    }
}

#[tokio::test]
async fn issuer_subject_and_audience_each_have_their_own_refusal() {
    let landscape = Landscape::with_role(None).await;
    let foreign = changed(&landscape, "iss", json!("https://elsewhere.example"));
    let (status, error, code, words) = refused(landscape.exchange(TENANT, CLIENT, &foreign).await);
    assert_eq!((status, error.as_str(), code), (401, "invalid_client", 700_211));
    assert!(words.contains("presented assertion issuer 'https://elsewhere.example'"), "{words}");

    let subject = changed(&landscape, "sub", json!("system:serviceaccount:default:thief"));
    let (status, _, code, words) = refused(landscape.exchange(TENANT, CLIENT, &subject).await);
    assert_eq!((status, code), (401, 700_213));
    assert!(words.contains("presented assertion subject 'system:serviceaccount:default:thief'"), "{words}");

    let audience = changed(&landscape, "aud", json!("https://kubernetes.default.svc"));
    assert_eq!(refused(landscape.exchange(TENANT, CLIENT, &audience).await).2, 700_212);
    // Byte by byte: a trailing slash is another issuer.
    let slash = changed(&landscape, "iss", json!(format!("{}/", landscape.issuer.url)));
    assert_eq!(refused(landscape.exchange(TENANT, CLIENT, &slash).await).2, 700_211);
    assert_eq!(landscape.issuer.fetches(), 0, "nobody who is not trusted makes the endpoint fetch anything");
}

#[tokio::test]
async fn taking_the_credential_away_ends_the_exchange_with_the_issuers_name() {
    let landscape = Landscape::with_role(None).await;
    landscape.access_token().await;
    landscape.admin.delete_federated_credential(CLIENT, "alpha").await.unwrap();
    let (_, _, code, words) = refused(landscape.exchange(TENANT, CLIENT, &landscape.issuer.token()).await);
    assert_eq!(code, 700_211);
    assert!(words.contains(&landscape.issuer.url));
}

#[tokio::test]
async fn a_token_outside_its_time_is_refused_with_the_range() {
    let landscape = Landscape::with_role(None).await;
    let old = changed(&landscape, "exp", json!(1_700_000_000));
    let (status, error, code, words) = refused(landscape.exchange(TENANT, CLIENT, &old).await);
    assert_eq!((status, error.as_str(), code), (401, "invalid_client", 700_024));
    assert!(words.contains("expiry time of assertion 2023-11-14T22:13:20.0000000Z"), "{words}");
    let early = changed(&landscape, "nbf", json!(jiff::Timestamp::now().as_second() + 600));
    assert_eq!(refused(landscape.exchange(TENANT, CLIENT, &early).await).2, 700_024);
}

#[tokio::test]
async fn the_signature_must_be_of_a_key_that_the_issuer_publishes() {
    let landscape = Landscape::with_role(None).await;
    let claims = landscape.issuer.claims();
    let (status, error, code, words) =
        refused(landscape.exchange(TENANT, CLIENT, &IssuerKey::rsa("unknown").sign(&claims)).await);
    assert_eq!((status, error.as_str(), code), (401, "invalid_client", 700_027));
    assert!(words.contains("The key was not found") && words.contains("'unknown'"), "{words}");
    let (_, _, code, words) = refused(landscape.exchange(TENANT, CLIENT, &IssuerKey::rsa("first").sign(&claims)).await);
    assert_eq!(code, 700_027);
    assert!(words.contains("did not match"), "{words}");
}

#[tokio::test]
async fn keys_are_cached_and_a_rotation_is_followed_at_once() {
    let mut landscape = Landscape::with_role(None).await;
    landscape.access_token().await;
    landscape.access_token().await;
    assert_eq!(landscape.issuer.fetches(), 1);
    landscape.issuer.rotate(IssuerKey::ecdsa("second"));
    landscape.access_token().await;
    assert_eq!(landscape.issuer.fetches(), 2);
}

#[tokio::test]
async fn many_exchanges_at_once_fetch_the_keys_once() {
    let landscape = Landscape::with_role(None).await;
    futures::future::join_all((0..8).map(|_| landscape.access_token())).await;
    assert_eq!(landscape.issuer.fetches(), 1);
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_or_names_another_gives_50166() {
    let landscape = Landscape::with_role(None).await;
    let lying = Issuer::start_saying(&azurite().certificates, Some("https://someone.else")).await;
    landscape.admin.put_federated_credential(CLIENT, "lying", &credential(&lying.url)).await.unwrap();
    let (status, error, code, _) = refused(landscape.exchange(TENANT, CLIENT, &lying.token()).await);
    assert_eq!((status, error.as_str(), code), (400, "invalid_request", 50_166));

    // A port that was free a moment ago: nobody answers.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = format!("https://localhost:{port}");
    landscape.admin.put_federated_credential(CLIENT, "gone", &credential(&gone)).await.unwrap();
    let token = changed(&landscape, "iss", json!(gone));
    assert_eq!(refused(landscape.exchange(TENANT, CLIENT, &token).await).2, 50_166);
}

#[tokio::test]
async fn tokens_live_as_long_as_the_settings_say() {
    let landscape = Landscape::with_role(None).await;
    landscape.admin.put_settings(Settings { access_token_seconds: 7 }).await.unwrap();
    let (_, answer) = landscape.exchange(TENANT, CLIENT, &landscape.issuer.token()).await;
    assert_eq!(answer["expires_in"], 7);
}

#[tokio::test]
async fn discovery_leads_to_the_key_that_signs_access_tokens() {
    let landscape = Landscape::with_role(None).await;
    let get = async |url: String| landscape.http.get(url).send().await.unwrap().json::<Value>().await.unwrap();
    let document = get(format!("{}/{TENANT}/v2.0/.well-known/openid-configuration", landscape.origin())).await;
    let endpoint = format!("{}/{TENANT}/oauth2/v2.0/token", landscape.origin());
    assert_eq!(document["token_endpoint"], endpoint);
    let keys = get(document["jwks_uri"].as_str().unwrap().to_owned()).await;
    let header = jsonwebtoken::decode_header(landscape.access_token().await).unwrap();
    assert_eq!(keys["keys"][0]["kid"], header.kid.unwrap());
}

#[tokio::test]
async fn the_twenty_first_federated_credential_is_refused_and_a_change_of_one_is_not() {
    let landscape = Landscape::with_role(None).await;
    let admin = &landscape.admin;
    let numbered = |number: usize| FederatedCredential {
        subject: format!("system:serviceaccount:ns:{number}"),
        ..credential("https://issuer.example")
    };
    for number in 1..20 {
        admin.put_federated_credential(CLIENT, &format!("cluster-{number}"), &numbered(number)).await.unwrap();
    }
    let error = admin.put_federated_credential(CLIENT, "cluster-20", &numbered(20)).await.unwrap_err().to_string();
    assert!(error.contains("400") && error.contains("No more than 20 federated identity credentials"), "{error}");
    admin.put_federated_credential(CLIENT, "cluster-19", &numbered(99)).await.unwrap();
    assert_eq!(admin.identity(CLIENT).await.unwrap().federated_credentials.len(), 20);
    let twice = admin.put_federated_credential(CLIENT, "cluster-18", &numbered(99)).await.unwrap_err().to_string();
    assert!(twice.contains("Issuer and subject combination already exists"), "{twice}");
    let plain = admin.put_federated_credential(CLIENT, "cluster-1", &credential("http://issuer.example")).await;
    assert!(plain.unwrap_err().to_string().contains("must be an https URL"));
}
