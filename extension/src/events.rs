//! Kubernetes events about our objects. An event that cannot be written is logged: it never stops the work.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

/// Longest note of an event that the API server accepts, in bytes.
/// Source: Kubernetes, `pkg/apis/core/validation/events.go`.
const MAX_NOTE: usize = 1024;

/// Writes events as the garden side.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// A writer for one client; `instance` is the replica's name.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: "shoot-backup-garden".to_owned(), instance: Some(instance) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Something that went as it should.
    pub async fn normal<K>(&self, object: &K, reason: &str, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        self.publish(&object.object_ref(&()), EventType::Normal, reason, note).await;
    }

    /// Something that somebody should look at.
    pub async fn warning<K>(&self, object: &K, reason: &str, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        self.publish(&object.object_ref(&()), EventType::Warning, reason, note).await;
    }

    async fn publish(&self, reference: &ObjectReference, type_: EventType, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shoot_backup_api::conditions::truncate(note, MAX_NOTE).to_owned()),
            action: reason.to_owned(),
            secondary: None,
        };
        let written = crate::request::timed("write an event", self.recorder.publish(&event, reference)).await;
        if let Err(error) = written {
            tracing::warn!(%error, reason, note, name = reference.name, "an event was lost");
        }
    }
}
