//! Kubeconfigs that others give us, turned into clients in memory.
//!
//! A kubeconfig may name programs to run and files to read. Ours come from project members and from foreign gardens:
//! only what stands in the text itself is used, anything else is refused. Nothing here ever prints a kubeconfig.

use std::fmt;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::version::Info;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::request::{self, CONNECT_TIMEOUT, REQUEST_TIMEOUT, timed};

/// Contexts of one kubeconfig that are tried. Gardener writes one for each advertised address, five at most.
const MAX_CONTEXTS: usize = 8;

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no kubeconfig. The parser's own message might quote the text, so it is not kept.
    #[error("failed to read the kubeconfig: it is not valid YAML of kind Config")]
    Malformed,
    /// It wants something that is not allowed here.
    #[error("failed to accept the kubeconfig: {0}")]
    Forbidden(String),
    /// A part of it is unusable.
    #[error("failed to use context {context} of the kubeconfig: {message}")]
    Unusable {
        /// Name of the context.
        context: String,
        /// What is wrong; never a value of the kubeconfig.
        message: String,
    },
    /// No address answered.
    #[error("failed to reach the API server: {0}")]
    Unreachable(#[source] request::Error),
}

/// A kubeconfig of which every part was checked.
pub struct Checked {
    kubeconfig: Kubeconfig,
}

impl fmt::Debug for Checked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Checked(redacted)")
    }
}

/// Reads a kubeconfig and refuses what reaches outside of its text.
pub fn check(text: &str) -> Result<Checked, Error> {
    let kubeconfig = Kubeconfig::from_yaml(text).map_err(|_| Error::Malformed)?;
    let forbidden = |what: &str| Err(Error::Forbidden(what.to_owned()));
    for cluster in kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref()) {
        if cluster.certificate_authority.is_some() {
            return forbidden("certificate-authority names a file: write certificate-authority-data instead");
        }
        if cluster.proxy_url.is_some() {
            return forbidden("proxy-url is not supported");
        }
        if cluster.insecure_skip_tls_verify == Some(true) {
            return forbidden("insecure-skip-tls-verify is not allowed: write certificate-authority-data instead");
        }
        if !cluster.server.as_deref().is_some_and(|server| server.starts_with("https://")) {
            return forbidden("server must be an https URL");
        }
    }
    for user in kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref()) {
        if user.exec.is_some() || user.auth_provider.is_some() {
            return forbidden("exec and auth-provider run programs: use a token or a client certificate");
        }
        if user.token_file.is_some() || user.client_certificate.is_some() || user.client_key.is_some() {
            return forbidden("tokenFile, client-certificate and client-key name files: write the data instead");
        }
    }
    if kubeconfig.contexts.is_empty() {
        return forbidden("it has no context");
    }
    Ok(Checked { kubeconfig })
}

/// A client, and what is needed to make others for the same API server.
#[derive(Clone)]
pub struct Access {
    /// The client.
    pub client: Client,
    /// Where the API server is and how to trust it.
    pub endpoint: Endpoint,
    /// The API server's version.
    pub version: String,
}

/// Where an API server is and how to trust it; no credential.
#[derive(Clone, Debug)]
pub struct Endpoint {
    url: http::Uri,
    root_cert: Option<Vec<Vec<u8>>>,
    tls_server_name: Option<String>,
}

impl Checked {
    /// Names of contexts in the order to try: the current one, then those of external addresses, then the rest.
    fn order(&self) -> Vec<String> {
        let current = self.kubeconfig.current_context.as_deref();
        let mut names: Vec<String> = self.kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
        names.sort_by_key(|name| (Some(name.as_str()) != current, !name.ends_with("external")));
        names.truncate(MAX_CONTEXTS);
        names
    }

    /// Connects to the first address that answers; `roots` are the CA certificates (DER) for a server whose context
    /// names none; empty: the system's.
    pub async fn connect(self, roots: &[Vec<u8>]) -> Result<Access, Error> {
        let mut last = Error::Malformed;
        for context in self.order() {
            match self.connect_to(&context, roots).await {
                Ok(access) => return Ok(access),
                // A server that answers and refuses is the right one: another address would refuse as well.
                Err(Error::Unreachable(error)) if !error.is_unreachable() => return Err(Error::Unreachable(error)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, context: &str, roots: &[Vec<u8>]) -> Result<Access, Error> {
        let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
        let unusable = |message: &str| Error::Unusable { context: context.to_owned(), message: message.to_owned() };
        let config = Config::from_custom_kubeconfig(self.kubeconfig.clone(), &options)
            .await
            .map_err(|_| unusable("its cluster or user is missing or its data is not valid base64"))?;
        let endpoint = Endpoint {
            url: config.cluster_url.clone(),
            root_cert: trusted(config.root_cert.clone(), roots),
            tls_server_name: config.tls_server_name.clone(),
        };
        let client =
            endpoint.client(config.auth_info).map_err(|_| unusable("its certificates or keys cannot be read"))?;
        let version: Info =
            timed(format!("reach {}", endpoint.url), client.apiserver_version()).await.map_err(Error::Unreachable)?;
        Ok(Access { client, endpoint, version: version.git_version.trim_start_matches('v').to_owned() })
    }
}

/// A kubeconfig's own CA is the only one for its server. Without one `roots` are: the additional ones and the
/// system's; if there are none, the client takes the system's by itself.
fn trusted(own: Option<Vec<Vec<u8>>>, roots: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    match own {
        Some(own) => Some(own),
        None if roots.is_empty() => None,
        None => Some(roots.to_vec()),
    }
}

impl Endpoint {
    /// A client with a bearer token.
    pub fn with_token(&self, token: String) -> Result<Client, kube::Error> {
        self.client(kube::config::AuthInfo { token: Some(token.into()), ..Default::default() })
    }

    fn client(&self, auth_info: kube::config::AuthInfo) -> Result<Client, kube::Error> {
        let mut config = Config::new(self.url.clone());
        config.root_cert.clone_from(&self.root_cert);
        config.tls_server_name.clone_from(&self.tls_server_name);
        config.auth_info = auth_info;
        limit(&mut config);
        Client::try_from(config)
    }
}

/// Deadlines of every client for an application cluster. Requests are tried again by the reconcile that made them:
/// retries inside the client would hold up its place in the queue.
fn limit(config: &mut Config) {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(REQUEST_TIMEOUT);
    config.write_timeout = Some(REQUEST_TIMEOUT);
    config.reset_reader_on_write = true;
    config.default_retry = false;
}

/// The client for the own garden: from the kubeconfig at `path`, which the operator of the garden side gives and which
/// may therefore name files, or from the cluster where the process runs. `roots` as for [`Checked::connect`].
pub async fn garden(path: Option<&std::path::Path>, roots: &[Vec<u8>]) -> Result<Client, anyhow::Error> {
    use anyhow::Context as _;
    let mut config = match path {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .map_err(|_| anyhow::anyhow!("failed to read the garden's kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("failed to use the garden's kubeconfig {}", path.display()))?
        }
        None => Config::incluster().context("failed to find the cluster that this process runs in")?,
    };
    config.root_cert = trusted(config.root_cert.take(), roots);
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Longer than the watches' own limit of 290 s: a connection that died in silence ends here.
    config.read_timeout = Some(Duration::from_secs(295));
    config.reset_reader_on_write = true;
    Client::try_from(config).context("failed to make a client for the garden")
}

/// Parts of connections for the tests of other modules.
#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;

    /// An endpoint where nobody answers.
    pub(crate) fn endpoint() -> Endpoint {
        Endpoint { url: http::Uri::from_static("https://127.0.0.1:1"), root_cert: None, tls_server_name: None }
    }

    /// A client for requests that are never made.
    pub(crate) fn client() -> Client {
        let (service, _) =
            tower_test::mock::pair::<http::Request<kube::client::Body>, http::Response<kube::client::Body>>();
        Client::new(service, "default")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(cluster: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: b\nclusters:\n- name: c\n  cluster: {cluster}\n\
             users:\n- name: u\n  user: {user}\ncontexts:\n- name: a-internal\n  context: {{cluster: c, user: u}}\n\
             - name: a-external\n  context: {{cluster: c, user: u}}\n- name: b\n  context: {{cluster: c, user: u}}\n"
        )
    }

    const SERVER: &str = "{server: 'https://127.0.0.1:1'}";

    #[test]
    fn a_kubeconfig_of_its_own_data_is_accepted() {
        assert!(check(&kubeconfig(SERVER, "{token: secret}")).is_ok());
    }

    #[test]
    fn a_kubeconfig_that_runs_programs_or_reads_files_is_refused() {
        for user in [
            "{exec: {apiVersion: client.authentication.k8s.io/v1, command: sh}}",
            "{auth-provider: {name: oidc, config: {}}}",
            "{tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token}",
            "{client-certificate: /etc/passwd}",
            "{client-key: /etc/passwd}",
        ] {
            assert!(matches!(check(&kubeconfig(SERVER, user)), Err(Error::Forbidden(_))), "{user}");
        }
    }

    #[test]
    fn a_server_that_cannot_be_trusted_is_refused() {
        for cluster in [
            "{server: 'http://127.0.0.1:1'}",
            "{server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}",
            "{server: 'https://127.0.0.1:1', certificate-authority: /etc/ssl/ca.pem}",
            "{server: 'https://127.0.0.1:1', proxy-url: 'http://127.0.0.1:2'}",
        ] {
            assert!(matches!(check(&kubeconfig(cluster, "{}")), Err(Error::Forbidden(_))), "{cluster}");
        }
    }

    #[test]
    fn neither_errors_nor_debug_output_show_the_text() {
        let error = check("token: very-secret\n  - broken").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("very-secret"));
        let checked = check(&kubeconfig(SERVER, "{token: very-secret}")).unwrap();
        assert!(!format!("{checked:?}").contains("very-secret"));
    }

    #[test]
    fn the_current_context_is_tried_first_and_external_addresses_before_internal_ones() {
        let checked = check(&kubeconfig(SERVER, "{}")).unwrap();
        assert_eq!(checked.order(), ["b", "a-external", "a-internal"]);
    }
}
