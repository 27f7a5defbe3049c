//! The management plane holds no credential: a test looks.

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use shoot_backup_e2e::kubectl::Kubectl;
use shoot_backup_e2e::product;
use shoot_backup_landscape::Cluster;

use crate::world::test;

/// What gives a credential away wherever it stands: private keys, client keys, tokens of API servers and of Entra ID.
fn credential_in(text: &str) -> Option<&'static str> {
    const SIGNS: [(&str, &str); 5] = [
        ("client-key-data", "a client key in a kubeconfig"),
        ("PRIVATE KEY-----", "a private key"),
        ("client_assertion=", "an assertion for Entra ID"),
        ("SharedKey ", "a storage account key"),
        ("sig=", "a shared access signature"),
    ];
    if let Some((_, what)) = SIGNS.iter().find(|(sign, _)| text.contains(sign)) {
        return Some(what);
    }
    // A JSON Web Token: header and claims both begin with an encoded brace.
    text.split(|character: char| !(character.is_ascii_alphanumeric() || "-_.".contains(character)))
        .any(|word| word.starts_with("eyJ") && word.matches(".eyJ").count() == 1 && word.matches('.').count() == 2)
        .then_some("a JSON Web Token")
}

/// Secrets that people or the test itself made: the owner's kubeconfigs, Gardener's own.
const OWN: [&str; 3] = ["delta-kubeconfig", "foreign-garden", "nobody-kubeconfig"];

async fn secrets(kubectl: &Kubectl, arguments: &[&str]) -> Result<Vec<(String, String)>> {
    let mut all = vec!["get", "secrets"];
    all.extend_from_slice(arguments);
    let list = kubectl.json(&all).await?;
    let mut secrets = Vec::new();
    for secret in list["items"].as_array().into_iter().flatten() {
        let name = format!(
            "{}/{}",
            secret["metadata"]["namespace"].as_str().unwrap_or(""),
            secret["metadata"]["name"].as_str().unwrap_or("")
        );
        let mut text = String::new();
        for value in secret["data"].as_object().into_iter().flat_map(|data| data.values()) {
            text.push_str(&decode(value)?);
            text.push('\n');
        }
        secrets.push((name, text));
    }
    Ok(secrets)
}

fn decode(value: &Value) -> Result<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn no_secret_log_or_status_of_garden_and_shoots_holds_a_credential() {
    test(|world| async {
        let garden = world.garden();
        for (name, text) in secrets(&garden, &["-A"]).await? {
            // Projects' namespaces are ours to look at; what Gardener keeps of its own is not.
            let own = OWN.iter().any(|own| name.ends_with(own)) || !name.starts_with("garden-");
            if !own && let Some(what) = credential_in(&text) {
                bail!("Secret {name} of the garden holds {what}");
            }
        }
        for cluster in [Cluster::Alpha, Cluster::Beta] {
            for (name, text) in secrets(&world.kubectl(cluster), &["-A"]).await? {
                if let Some(what) = credential_in(&text) {
                    bail!("Secret {name} of {cluster} holds {what}");
                }
            }
            let logs = ["logs", "-n", "shoot-backup", "deployment/shoot-backup-agent", "--tail=-1"];
            let logs = world.kubectl(cluster).run(&logs).await?;
            ensure!(!logs.is_empty(), "the agent of {cluster} logs nothing");
            ensure!(credential_in(&logs).is_none(), "the agent's log in {cluster} holds {:?}", credential_in(&logs));
        }
        let seed = world.kubectl(Cluster::Seed);
        for (name, text) in secrets(&seed, &["-n", product::NAMESPACE]).await? {
            // The garden side's own access to the garden, and Helm's record of the release.
            let ours = name.ends_with("/garden-kubeconfig") || name.contains("/sh.helm.release");
            ensure!(
                ours || credential_in(&text).is_none(),
                "Secret {name} of the seed holds {:?}",
                credential_in(&text)
            );
        }
        let logs = ["logs", "-n", product::NAMESPACE, "deployment/shoot-backup-garden", "--tail=-1"];
        let logs = seed.run(&logs).await?;
        ensure!(!logs.is_empty(), "the garden side logs nothing");
        ensure!(credential_in(&logs).is_none(), "the garden side's log holds {:?}", credential_in(&logs));
        let kinds = "clusterdiscoveries,applicationclusters,backuplocations,backups,restores,events,configmaps";
        let objects = garden.run(&["get", kinds, "-A", "-o", "json"]).await?;
        ensure!(credential_in(&objects).is_none(), "an object of the garden holds {:?}", credential_in(&objects));
        Ok(())
    });
}

#[test]
fn a_credential_is_recognised() {
    assert!(credential_in("token: eyJhbGciOi.eyJpc3Mi.c2ln").is_some());
    assert!(credential_in("-----BEGIN RSA PRIVATE KEY-----").is_some());
    assert!(credential_in("nothing to see, not even eyJ").is_none());
}
