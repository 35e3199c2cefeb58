//! Which pods older `OtelAgent`s take from a younger one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use otelagent_api::{OtelAgent, Resource, ResourceExt};
use otelagent_core::build::{Environment, selection};
use otelagent_core::inject::Selection;
use otelagent_core::inject::precedence::{self, Candidate};
use otelagent_core::reconcile::overlap::{candidate, created, may_meet};

use crate::snapshot::Snapshot;

/// Sorts behind every time that an API server writes.
const NOT_CREATED_YET: &str = "~";

/// What each `OtelAgent` of a cluster selects.
pub struct Overlaps<'a> {
    environment: &'a Environment,
    candidates: Vec<(&'a ObjectMeta, Candidate)>,
}

impl<'a> Overlaps<'a> {
    /// Those of a cluster.
    pub fn of(snapshot: &'a Snapshot, environment: &'a Environment) -> Self {
        let readable = snapshot.agents.iter();
        let readable = readable.filter_map(|(key, agent)| Some((key, agent.agent.as_ref().ok()?)));
        let candidates = readable.filter_map(|(key, agent)| {
            let active = || snapshot.active_of(key)?.selection.clone();
            Some((agent.meta(), candidate(agent, environment, active)?))
        });
        Self {
            environment,
            candidates: candidates.collect(),
        }
    }

    /// The pods that older ones take from this one, which need not exist yet.
    pub fn exclusions(&self, agent: &OtelAgent) -> Vec<Selection> {
        let own = agent.meta();
        let mut all = self.candidates.iter();
        let known = all.find(|(meta, _)| meta.uid.is_some() && meta.uid == own.uid);
        let me = match known {
            Some((_, me)) => me.clone(),
            None => match selection(agent) {
                Some(selection) => Candidate {
                    created: match own.creation_timestamp {
                        Some(_) => created(own),
                        None => NOT_CREATED_YET.into(),
                    },
                    namespace: agent.namespace().unwrap_or_default(),
                    name: agent.name_any(),
                    selection,
                },
                None => return Vec::new(),
            },
        };
        let platform = &self.environment.platform_namespaces;
        let others = self.candidates.iter();
        let others = others.filter(|(meta, _)| may_meet(own, meta, platform));
        let others: Vec<Candidate> = others.map(|(_, other)| other.clone()).collect();
        let preceding = precedence::preceding(&me, &others).into_iter();
        precedence::exclusions(&preceding.cloned().collect::<Vec<_>>())
    }
}
