//! `HostNetwork`: a `DaemonSet` on the network of its node.
//!
//! The bundled agent declares no ports and binds with `SO_REUSEPORT`: the scheduler then sees no
//! conflict (KEP-1591) and two agents can share a node during an update or a hand-over from `HostPort`.
//! Their health endpoints share a port too, so the readiness probe uses a Unix socket in the pod.

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, ExecAction, Probe, Volume};

use super::daemon::{Parts, Rollout, daemon_set};
use super::topology::{Topology, on_own_node, variables_only};
use crate::build::agent_pod::{self, RenderInput};
use crate::build::environment::Environment;
use crate::build::objects::Object;
use crate::build::valid_agent::{Placement, ValidAgent};
use crate::inject::Recipe;
use otelagent_api::Mode;

/// Volume and folder of the health socket.
const RUN_VOLUME: &str = "otelagent-run";
const RUN_DIRECTORY: &str = "/run/otelagent";

pub(super) struct HostNetwork;

impl Topology for HostNetwork {
    fn mode(&self) -> Mode {
        Mode::HostNetwork
    }

    fn placement(&self) -> Placement {
        Placement::Host
    }

    fn objects(&self, input: &RenderInput<'_>) -> Vec<Object> {
        let agent = input.agent;
        let mut container = agent_pod::container(input);
        let mut volumes = Vec::new();
        let mut rollout = Rollout::Replace;
        if agent.own_image().is_none() {
            let socket = format!("{RUN_DIRECTORY}/health.sock");
            let env = container.env.get_or_insert_default();
            env.push(agent_pod::variable("OTELAGENT_REUSE_PORT", "true"));
            env.push(agent_pod::variable("OTELAGENT_HEALTH_SOCKET", &socket));
            container
                .volume_mounts
                .get_or_insert_default()
                .push(agent_pod::mount(RUN_VOLUME, RUN_DIRECTORY, false));
            container.readiness_probe = Some(Probe {
                exec: Some(ExecAction {
                    command: Some(vec!["/otelagent-agent".into(), "ready".into()]),
                }),
                period_seconds: Some(2),
                failure_threshold: Some(2),
                ..Probe::default()
            });
            volumes.push(Volume {
                name: RUN_VOLUME.into(),
                empty_dir: Some(EmptyDirVolumeSource {
                    medium: Some("Memory".into()),
                    ..EmptyDirVolumeSource::default()
                }),
                ..Volume::default()
            });
            rollout = Rollout::Surge;
        } else {
            container.readiness_probe = Some(agent_pod::health_probe(agent, 2, 2));
        }
        let parts = Parts {
            mode: self.mode(),
            container,
            volumes,
            host_network: true,
            rollout,
        };
        vec![Object::DaemonSet(Box::new(daemon_set(input, parts)))]
    }

    fn endpoint(&self, agent: &ValidAgent, environment: &Environment) -> String {
        on_own_node(agent, environment)
    }

    fn recipe(&self, input: &RenderInput<'_>) -> Recipe {
        let endpoint = self.endpoint(input.agent, input.environment);
        variables_only(self.mode(), input.agent, &endpoint, true)
    }
}
