//! The workloads above a pod's controller.
//!
//! A pod names its controller only. What made that controller follows from labels, or from the names that
//! controllers give. [`crate::inject`] has the same rules in CEL.

/// A workload above a pod's controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Above<'a> {
    /// Group and version of its kind; empty if unknown.
    pub api_version: &'static str,
    /// Its kind, [`UNKNOWN`] if only its name is known.
    pub kind: &'static str,
    /// Its name.
    pub name: &'a str,
}

/// The kind of a workload of which only the name is known.
pub const UNKNOWN: &str = "Workload";

/// Labels of a `ReplicaSet`'s pods whose value ends the name of the `ReplicaSet`, with group, version and
/// kind of what made it.
pub(crate) const HASH_LABELS: [(&str, &str, &str); 2] = [
    ("pod-template-hash", "apps/v1", "Deployment"),
    (
        "rollouts-pod-template-hash",
        "argoproj.io/v1alpha1",
        "Rollout",
    ),
];
/// Labels of Knative's pods with the name of the object that a person writes. Each revision has a Deployment
/// of its own.
pub(crate) const KNATIVE_LABELS: [(&str, &str); 2] = [
    ("serving.knative.dev/service", "Service"),
    ("serving.knative.dev/configuration", "Configuration"),
];
/// The label of a `DeploymentConfig`'s pods with its name, and the annotation. It makes a
/// `ReplicationController` `name-N` for each release.
pub(crate) const DEPLOYMENT_CONFIG: [&str; 2] =
    ["deploymentconfig", "openshift.io/deployment-config.name"];
/// The end of a name that a controller has made of a hash (`SafeEncodeString` of apimachinery has no vowels
/// and no digits that look like letters).
pub(crate) const HASH_SUFFIX: &str = "-[bcdfghjklmnpqrstvwxz2456789]{8,10}$";
/// The end of the name of a `CronJob`'s Job: the scheduled time in minutes, here from 2019 to 2049. Any
/// eight digits would also match a date such as 20261122.
pub(crate) const CRON_SUFFIX: &str = "-(2[6-9]|3[0-9]|4[01])[0-9]{6}$";
/// The length of that suffix.
pub(crate) const CRON_SUFFIX_CHARS: usize = 9;

/// The workloads above a controller, outermost first, by the pod's labels and annotations.
pub fn above<'a>(
    kind: &str,
    name: &'a str,
    label: impl Fn(&str) -> Option<&'a str>,
    annotation: impl Fn(&str) -> Option<&'a str>,
) -> Vec<Above<'a>> {
    let found = |api_version, kind, name| Above {
        api_version,
        kind,
        name,
    };
    match kind {
        "ReplicaSet" => {
            let knative = KNATIVE_LABELS.iter().filter_map(|(key, kind)| {
                let name = label(key).filter(|name| !name.is_empty())?;
                Some(found("serving.knative.dev/v1", kind, name))
            });
            let hashed = HASH_LABELS.iter().filter_map(|(key, api_version, kind)| {
                let outer = before_dash(name.strip_suffix(label(key)?)?)?;
                Some(found(api_version, kind, outer))
            });
            let named = without_hash(name).map(|outer| found("", UNKNOWN, outer));
            knative.chain(hashed).chain(named).collect()
        }
        "ReplicationController" => {
            let [key, other] = DEPLOYMENT_CONFIG;
            let configs = [label(key), annotation(other)].into_iter().flatten();
            let configs = configs.filter(|config| is_release_of(name, config));
            configs
                .map(|config| found("apps.openshift.io/v1", "DeploymentConfig", config))
                .collect()
        }
        "Job" => {
            let outer = without_cron_suffix(name);
            outer
                .map(|outer| found("batch/v1", "CronJob", outer))
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    }
}

fn before_dash(text: &str) -> Option<&str> {
    text.strip_suffix('-').filter(|outer| !outer.is_empty())
}

/// Whether a name is `config-N`.
fn is_release_of(name: &str, config: &str) -> bool {
    let number = name.strip_prefix(config);
    let number = number.and_then(|rest| rest.strip_prefix('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    !config.is_empty() && number.is_some_and(is_number)
}

/// The name without [`HASH_SUFFIX`], if it ends in one.
fn without_hash(name: &str) -> Option<&str> {
    let (outer, hash) = name.rsplit_once('-')?;
    let is_hash = (8..=10).contains(&hash.len())
        && hash
            .bytes()
            .all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b));
    (is_hash && !outer.is_empty()).then_some(outer)
}

/// The name without [`CRON_SUFFIX`], if it ends in one.
fn without_cron_suffix(name: &str) -> Option<&str> {
    let (outer, suffix) = name.split_at_checked(name.len().checked_sub(CRON_SUFFIX_CHARS)?)?;
    let digits = suffix.strip_prefix('-')?;
    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
    let minutes: u32 = is_number.then(|| digits.parse().ok())??;
    let is_of_cron = (26_000_000..42_000_000).contains(&minutes);
    (is_of_cron && !outer.is_empty()).then_some(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind and name of what stands above a controller whose pods have one label and one annotation.
    fn seen<'a>(
        kind: &str,
        name: &'a str,
        label: (&str, &'a str),
        annotation: (&str, &'a str),
    ) -> Vec<(&'static str, &'a str)> {
        let value = |(own, value): (&str, &'a str), key: &str| (own == key).then_some(value);
        let found = above(
            kind,
            name,
            |key| value(label, key),
            |key| value(annotation, key),
        );
        found.iter().map(|above| (above.kind, above.name)).collect()
    }

    const NONE: (&str, &str) = ("", "");

    #[test]
    fn replica_set_is_known_by_the_hash_that_ends_its_name() {
        let of = |label, name| seen("ReplicaSet", name, label, NONE);
        let deployment = ("pod-template-hash", "abc");
        assert_eq!(of(deployment, "shop-abc"), [("Deployment", "shop")]);
        assert_eq!(of(deployment, "-abc"), []);
        assert_eq!(of(deployment, "shop-abd"), []);
        let rollout = ("rollouts-pod-template-hash", "6d8f9c7b5d");
        assert_eq!(
            of(rollout, "shop-6d8f9c7b5d"),
            [("Rollout", "shop"), (UNKNOWN, "shop")]
        );
    }

    #[test]
    fn unknown_owner_of_a_replica_set_is_known_by_the_name_it_gave() {
        let of = |name| seen("ReplicaSet", name, NONE, NONE);
        assert_eq!(of("shop-6d8f9c7b5d"), [(UNKNOWN, "shop")]);
        for own in [
            "shop",
            "shop-20261122",
            "shop-frontend",
            "shop-v2",
            "-6d8f9c7b5d",
        ] {
            assert_eq!(of(own), [], "{own}");
        }
        assert_eq!(seen("StatefulSet", "shop-6d8f9c7b5d", NONE, NONE), []);
    }

    #[test]
    fn knative_revision_belongs_to_its_service() {
        let of = |label| seen("ReplicaSet", "shop-00001-deployment-abc", label, NONE);
        assert_eq!(
            of(("serving.knative.dev/service", "shop")),
            [("Service", "shop")]
        );
        assert_eq!(
            of(("serving.knative.dev/configuration", "shop")),
            [("Configuration", "shop")]
        );
        assert_eq!(of(("serving.knative.dev/service", "")), []);
    }

    #[test]
    fn replication_controller_belongs_to_its_deployment_config() {
        let of = |label, annotation, name| seen("ReplicationController", name, label, annotation);
        let expected = [("DeploymentConfig", "shop")];
        let [label, annotation] = DEPLOYMENT_CONFIG;
        assert_eq!(of((label, "shop"), NONE, "shop-12"), expected);
        assert_eq!(of(NONE, (annotation, "shop"), "shop-12"), expected);
        for (config, name) in [
            ("shop", "cart-12"),
            ("shop", "shop-a"),
            ("shop", "shop-"),
            ("", "-1"),
        ] {
            assert_eq!(of((label, config), NONE, name), [], "{config} {name}");
        }
        assert_eq!(of(NONE, NONE, "shop-12"), []);
    }

    #[test]
    fn cron_job_is_distinguished_from_a_job_that_ends_in_a_date() {
        let of = |name| seen("Job", name, NONE, NONE);
        assert_eq!(of("backup-29834567"), [("CronJob", "backup")]);
        assert_eq!(of("import-20261122"), []);
        assert_eq!(of("-29834567"), []);
        assert_eq!(of("éééé"), []);
    }
}
