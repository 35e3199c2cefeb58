//! Telling: the status where it changed, and events on transitions.

use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::context::Context;
use super::error::ControllerError;
use otelagent_api::{OtelAgent, OtelAgentStatus};
use otelagent_core::names;
use otelagent_core::status::{Facts, Note, report as status_of, transitions, upgrade};

/// Longest note of an event, in bytes (events.k8s.io/v1).
const MAX_NOTE: usize = 1000;

/// Writes the status if it says something new, then tells of transitions.
pub(crate) async fn report(
    agent: &OtelAgent,
    facts: &Facts,
    context: &Context,
) -> Result<(), ControllerError> {
    let previous = agent.status.as_ref();
    let status = status_of(facts, previous);
    let mut news: Vec<Note> = upgrade(facts).into_iter().collect();
    if previous != Some(&status) {
        write(agent, &status, context).await?;
        news.extend(transitions(previous, &status));
    }
    for note in news {
        tell(agent, note, context).await;
    }
    Ok(())
}

async fn write(
    agent: &OtelAgent,
    status: &OtelAgentStatus,
    context: &Context,
) -> Result<(), ControllerError> {
    let namespace = agent.namespace().unwrap_or_default();
    let api: Api<OtelAgent> = Api::namespaced(context.client.clone(), &namespace);
    let intent = json!({
        "apiVersion": OtelAgent::api_version(&()),
        "kind": OtelAgent::kind(&()),
        "metadata": {"name": agent.name_any(), "uid": agent.uid()},
        "status": status,
    });
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    api.patch_status(&agent.name_any(), &parameters, &Patch::Apply(intent))
        .await
        .map_err(ControllerError::api("write the status"))?;
    context.metrics.wrote("OtelAgent", "status");
    Ok(())
}

/// An event that cannot be written must not keep the object from being reconciled.
async fn tell(agent: &OtelAgent, note: Note, context: &Context) {
    let event = Event {
        type_: if note.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: note.reason,
        note: Some(shorten(&note.message, MAX_NOTE)),
        action: "Reconcile".into(),
        secondary: None,
    };
    let about = agent.object_ref(&());
    if let Err(error) = context.recorder.publish(&event, &about).await {
        tracing::warn!(error = %error, "event not written");
    }
}

/// At most `limit` bytes, cut between characters.
fn shorten(text: &str, limit: usize) -> String {
    text.char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= limit)
        .map(|(_, c)| c)
        .collect()
}
