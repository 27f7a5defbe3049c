//! What to do about a location that does not work: the service's own code, turned into the step that helps.

use shoot_backup_api::names::{TOKEN_AUDIENCE, TOKEN_SUBJECT};
use shoot_backup_repository::{StoreError, StoreErrorKind, Verb};

use crate::mover::protocol::Target;
use crate::operation::failure::with_causes;

/// What failed, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// One word.
    pub reason: String,
    /// What happened and what to do.
    pub message: String,
}

/// Explains why a verb failed. `issuer` is that of the cluster's tokens; empty if it is not known.
#[must_use]
pub fn advise(verb: Verb, error: &StoreError, target: &Target, issuer: &str) -> Advice {
    let code = error.code().unwrap_or_default();
    let (reason, step) = if code.starts_with("AADSTS") || verb == Verb::TokenExchange {
        ("TokenExchangeFailed".to_owned(), token_step(code, error, target, issuer))
    } else {
        (reason(code, error), storage_step(code, error, target))
    };
    let reason =
        if error.kind() == StoreErrorKind::Unavailable && code.is_empty() { "Unreachable".to_owned() } else { reason };
    let message = format!("{} failed: {step}. The service says: {}", verb.as_str(), with_causes(error));
    Advice { reason, message }
}

fn token_step(code: &str, error: &StoreError, target: &Target, issuer: &str) -> String {
    let client = &target.client_id;
    let issuer = if issuer.is_empty() { "<the cluster's issuer, see the ApplicationCluster's status>" } else { issuer };
    match code {
        // No credential with this issuer, this audience, this subject; any of them.
        "AADSTS70021" | "AADSTS700211" | "AADSTS700212" | "AADSTS700213" => format!(
            "create a federated credential on {client} with issuer {issuer}, subject {TOKEN_SUBJECT}, audience \
             {TOKEN_AUDIENCE}"
        ),
        "AADSTS700016" => format!(
            "identity {client} is unknown in tenant {}: correct the client id or the tenant id",
            target.tenant_id
        ),
        "AADSTS90002" | "AADSTS900023" | "AADSTS900021" => {
            format!("tenant {} is unknown: correct the tenant id of the identity", target.tenant_id)
        }
        "AADSTS700024" => "the pod's token is not valid now: check the clocks of the nodes".to_owned(),
        "AADSTS50166" | "AADSTS501661" | "AADSTS700223" | "AADSTS5002738" | "AADSTS90061" => format!(
            "Entra ID cannot read the keys of issuer {issuer}: it must serve its discovery document to the internet"
        ),
        "AADSTS7000112" | "AADSTS7000113" => format!("identity {client} is disabled: enable it in Entra ID"),
        _ if is_unreachable(error) => format!(
            "{} cannot be reached: allow the cluster's traffic to it, and check extraCA if it has a private certificate",
            target.authority_host
        ),
        _ => format!("identity {client} of tenant {} gets no token", target.tenant_id),
    }
}

fn storage_step(code: &str, error: &StoreError, target: &Target) -> String {
    let Target { client_id, container, endpoint, .. } = target;
    match code {
        "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions" => {
            format!(
                "assign the role Storage Blob Data Contributor on container {container} of {endpoint} to {client_id}"
            )
        }
        "ContainerNotFound" => {
            format!("container {container} does not exist at {endpoint}: create it, or correct spec.container")
        }
        "ContainerBeingDeleted" => format!("container {container} is being deleted: restore it, or use another"),
        "ContainerDisabled" | "AccountIsDisabled" => format!("the account at {endpoint} is disabled: enable it"),
        "AuthorizationFailure" | "IpAuthorizationSourceDenied" | "PublicAccessNotPermitted" => format!(
            "the network rules of {endpoint} keep this cluster out: allow its egress addresses, or use a private endpoint"
        ),
        "InvalidAuthenticationInfo" | "AuthenticationFailed" | "NoAuthenticationInformation" => format!(
            "{endpoint} does not accept the token: the account must be in tenant {} and trust it",
            target.tenant_id
        ),
        "ResourceNotFound" | "InvalidUri" => format!("there is no blob service at {endpoint}: correct spec.account"),
        _ if is_unreachable(error) => format!(
            "{endpoint} cannot be reached: check spec.account, allow the cluster's traffic to it, and check extraCA if it \
             has a private certificate"
        ),
        _ => format!("container {container} of {endpoint} cannot be used"),
    }
}

fn reason(code: &str, error: &StoreError) -> String {
    // Conditions want a word; the services' codes are words.
    if !code.is_empty() && code.chars().all(|character| character.is_ascii_alphanumeric()) {
        return code.to_owned();
    }
    match error.kind() {
        StoreErrorKind::Unavailable => "Unreachable",
        StoreErrorKind::Throttled => "Throttled",
        StoreErrorKind::Forbidden => "Forbidden",
        StoreErrorKind::Unauthenticated => "Unauthenticated",
        StoreErrorKind::NotFound => "NotFound",
        StoreErrorKind::Immutable => "Immutable",
        StoreErrorKind::Corrupt => "Corrupt",
        StoreErrorKind::AlreadyExists | StoreErrorKind::Other => "Failed",
    }
    .to_owned()
}

fn is_unreachable(error: &StoreError) -> bool {
    error.kind() == StoreErrorKind::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            location: "main".to_owned(),
            endpoint: "https://account.blob.core.windows.net".to_owned(),
            container: "backups".to_owned(),
            client_id: "client".to_owned(),
            tenant_id: "tenant".to_owned(),
            authority_host: "https://login.microsoftonline.com/".to_owned(),
            ..Target::default()
        }
    }

    fn advice(verb: Verb, kind: StoreErrorKind, code: &str) -> Advice {
        let mut error = StoreError::new(kind, "failed to ask");
        if !code.is_empty() {
            error = error.with_code(code);
        }
        advise(verb, &error, &target(), "https://issuer")
    }

    #[test]
    fn a_missing_federated_credential_is_spelled_out() {
        for code in ["AADSTS700211", "AADSTS700213", "AADSTS700212", "AADSTS70021"] {
            let advice = advice(Verb::TokenExchange, StoreErrorKind::Unauthenticated, code);
            assert_eq!(advice.reason, "TokenExchangeFailed");
            for part in ["client", "https://issuer", TOKEN_SUBJECT, TOKEN_AUDIENCE, code] {
                assert!(advice.message.contains(part), "{code}: {}", advice.message);
            }
        }
    }

    #[test]
    fn each_known_code_names_the_step_that_helps() {
        let cases = [
            (Verb::TokenExchange, StoreErrorKind::Unauthenticated, "AADSTS90002", "tenant tenant is unknown"),
            (Verb::TokenExchange, StoreErrorKind::Unauthenticated, "AADSTS700016", "identity client is unknown"),
            (Verb::List, StoreErrorKind::Forbidden, "AuthorizationPermissionMismatch", "Storage Blob Data Contributor"),
            (Verb::List, StoreErrorKind::NotFound, "ContainerNotFound", "container backups does not exist"),
            (Verb::List, StoreErrorKind::Unavailable, "", "cannot be reached"),
            (Verb::TokenExchange, StoreErrorKind::Unavailable, "", "login.microsoftonline.com/ cannot be reached"),
        ];
        for (verb, kind, code, part) in cases {
            let advice = advice(verb, kind, code);
            assert!(advice.message.contains(part), "{code}: {}", advice.message);
        }
        assert_eq!(advice(Verb::List, StoreErrorKind::Unavailable, "").reason, "Unreachable");
        assert_eq!(advice(Verb::TokenExchange, StoreErrorKind::Unavailable, "").reason, "Unreachable");
        let mismatch = advice(Verb::Put, StoreErrorKind::Forbidden, "AuthorizationPermissionMismatch");
        assert_eq!(mismatch.reason, "AuthorizationPermissionMismatch");
    }
}
