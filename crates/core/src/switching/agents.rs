//! The agents of an agent workload, one by one: what they are, and what a node's agents lack.

use crate::delivery::ConfigurationWord;

/// One agent pod of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentPod {
    /// Its name.
    pub name: String,
    /// The node it runs on or was created for, if known.
    pub node: Option<String>,
    /// Whether it is ready and not terminating.
    pub ready: bool,
    /// What its container waits for, such as `ImagePullBackOff`, or why its node rejects it.
    pub waits_for: Option<String>,
    /// Hash of the template it was created from.
    pub template: Option<String>,
    /// What it says of its configuration. An agent that was not asked yet, does not answer or is of an earlier release
    /// says nothing.
    pub word: Option<ConfigurationWord>,
}

/// What the agents of a workload should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WantedAgents<'a> {
    /// Hash of their pod template.
    pub template: &'a str,
    /// Fingerprint of their configuration, unless any will do.
    pub configuration: Option<&'a str>,
}

impl AgentPod {
    /// Whether it was created from this template.
    pub(super) fn is_of(&self, template: &str) -> bool {
        self.template.as_deref() == Some(template)
    }

    /// Whether it was created from the wanted template, and runs the wanted configuration by its own word.
    pub(super) fn is(&self, wanted: WantedAgents<'_>) -> bool {
        let says = |word: &ConfigurationWord| {
            let configuration = wanted.configuration;
            configuration.is_none_or(|wanted| word.runs == wanted)
        };
        self.is_of(wanted.template) && self.word.as_ref().is_none_or(says)
    }

    /// Its name, and why it waits or where it finds mistakes in the present configuration, if known.
    fn described(&self) -> String {
        let refused = self.word.as_ref().and_then(|word| word.refuses.as_ref());
        let refused =
            refused.map(|at| format!("it refuses the present configuration at {at}: see its log"));
        match self.waits_for.clone().or(refused) {
            Some(why) => format!("{} ({why})", self.name),
            None => self.name.clone(),
        }
    }
}

/// What a node with agents lacks, for a person.
pub(super) enum Lack {
    /// A ready agent.
    Unready(String),
    /// A ready agent that is as wanted.
    Outdated(String),
}

pub(super) fn lack(node: &str, pods: &[&AgentPod], wanted: WantedAgents<'_>) -> Option<Lack> {
    if pods.iter().any(|pod| pod.ready && pod.is(wanted)) {
        return None;
    }
    let named = |pods: &[&AgentPod]| {
        let names: Vec<String> = pods.iter().map(|pod| pod.described()).collect();
        names.join(", ")
    };
    let (serving, starting): (Vec<&AgentPod>, Vec<_>) =
        pods.iter().copied().partition(|pod| pod.ready);
    let why = if starting.is_empty() {
        let named = named(&serving);
        format!("node {node}: agent {named} has an older configuration")
    } else {
        format!("node {node}: agent {} is not ready", named(&starting))
    };
    Some(if serving.is_empty() {
        Lack::Unready(why)
    } else {
        Lack::Outdated(why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(runs: Option<&str>) -> AgentPod {
        AgentPod {
            name: "a".into(),
            ready: true,
            template: Some("t".into()),
            word: runs.map(|runs| ConfigurationWord {
                runs: runs.into(),
                refuses: None,
            }),
            ..AgentPod::default()
        }
    }

    fn wanted<'a>(template: &'a str, configuration: &'a str) -> WantedAgents<'a> {
        WantedAgents {
            template,
            configuration: Some(configuration),
        }
    }

    #[test]
    fn agent_is_as_wanted_by_its_own_word_and_without_one_by_its_template() {
        assert!(pod(Some("c2")).is(wanted("t", "c2")));
        assert!(!pod(Some("c1")).is(wanted("t", "c2")));
        assert!(!pod(Some("c2")).is(wanted("u", "c2")), "it is replaced");
        assert!(pod(None).is(wanted("t", "c2")), "of an earlier release");
        assert!(!pod(None).is(wanted("u", "c2")));
        let any = WantedAgents {
            template: "t",
            configuration: None,
        };
        assert!(pod(Some("c1")).is(any));
    }

    #[test]
    fn node_whose_agent_refuses_the_configuration_is_named_with_the_place() {
        let mut pod = pod(Some("c1"));
        let lacks = |pod: &AgentPod| match lack("n1", &[pod], wanted("t", "c2")) {
            Some(Lack::Outdated(why)) => why,
            _ => panic!("it serves, and is outdated"),
        };
        assert_eq!(lacks(&pod), "node n1: agent a has an older configuration");
        if let Some(word) = &mut pod.word {
            word.refuses = Some("exporters.otlp_grpc.timeout".into());
        }
        assert_eq!(
            lacks(&pod),
            "node n1: agent a (it refuses the present configuration at exporters.otlp_grpc.timeout: see its log) has an \
             older configuration"
        );
    }
}
