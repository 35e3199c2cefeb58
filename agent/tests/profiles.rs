//! Profiles: every request is forwarded unchanged and alone.

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::profiles_service_client::ProfilesServiceClient;
use opentelemetry_proto::tonic::profiles::v1development::{
    Profile, ProfilesDictionary, ResourceProfiles, Sample, ScopeProfiles,
};
use prost::Message;

use crate::support::agent::{Agent, Setup};
use crate::support::client::{Grpc, Http};
use crate::support::eventually;
use crate::support::sink::{Reply, Sink, TOO_LARGE};
use crate::support::telemetry::resource;

const GRPC: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
const HTTP: &str = "/v1development/profiles";

/// Profiles with this many samples each.
fn profiles(name: &str, samples: &[usize]) -> ExportProfilesServiceRequest {
    let profiles = samples.iter().map(|count| Profile {
        samples: vec![
            Sample {
                stack_index: 1,
                values: vec![-1, 2],
                timestamps_unix_nano: vec![3, 4],
                ..Sample::default()
            };
            *count
        ],
        profile_id: vec![5; 16],
        original_payload: vec![6; 100],
        ..Profile::default()
    });
    ExportProfilesServiceRequest {
        resource_profiles: vec![ResourceProfiles {
            resource: Some(resource(&[("service.name", "shop")])),
            scope_profiles: vec![ScopeProfiles {
                profiles: profiles.collect(),
                ..ScopeProfiles::default()
            }],
            ..ResourceProfiles::default()
        }],
        dictionary: Some(ProfilesDictionary {
            string_table: vec![String::new(), name.to_owned()],
            ..ProfilesDictionary::default()
        }),
    }
}

fn start(setup: &Setup) -> Agent {
    let yaml = setup.yaml();
    let (before, pipelines) = yaml.split_once("pipelines: {traces: ").unwrap();
    let pipeline = pipelines.split_once('}').unwrap().0;
    setup.start_with(&format!(
        "{before}pipelines: {{profiles: {pipeline}}}, traces: {pipelines}"
    ))
}

/// The dictionary names of accepted requests, in order.
fn names(sink: &Sink) -> Vec<String> {
    sink.taken()
        .iter()
        .map(|request| {
            let request = ExportProfilesServiceRequest::decode(request.message.as_slice()).unwrap();
            request.dictionary.unwrap().string_table[1].clone()
        })
        .collect()
}

#[tokio::test]
async fn profiles_are_forwarded_one_by_one_over_both_protocols() {
    for is_grpc in [true, false] {
        let sink = if is_grpc {
            Sink::grpc().await
        } else {
            Sink::http().await
        };
        let setup = if is_grpc {
            Setup::grpc(sink.address)
        } else {
            Setup::http(sink.address)
        };
        let setup =
            setup.batch("flush_timeout: 1h, sizer: bytes, min_size: 3000000, max_size: 3000000");
        let agent = start(&setup);
        let url = format!("http://{}", agent.port());
        let mut client = ProfilesServiceClient::connect(url).await.unwrap();
        let answer = client.export(profiles("a", &[1, 2])).await.unwrap();
        assert_eq!(answer.into_inner().partial_success, None);
        let mut http = Http::connect(agent.port()).await;
        let body = profiles("b", &[4]).encode_to_vec();
        let answer = http.post(HTTP, &[], &body).await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &[][..]));
        let body = serde_json::json!({
            "resourceProfiles": [{"scopeProfiles": [{"profiles": [{"samples": [{"values": ["1"]}]}]}]}],
            "dictionary": {"stringTable": ["", "c"]},
        });
        let kind = [("content-type", "application/json")];
        let answer = http
            .post(HTTP, &kind, body.to_string().as_bytes())
            .await
            .unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{}"[..]));
        eventually("each is delivered at once and alone", || {
            let mut names = names(&sink);
            names.sort();
            names == ["a", "b", "c"]
        })
        .await;
        let path = if is_grpc { GRPC } else { HTTP };
        assert!(sink.taken().iter().all(|request| request.path == path));
        let sent = "otelcol_exporter_sent_profile_samples_total";
        eventually("samples are counted", || agent.metric(sent, "") == 8).await;
        assert_eq!(
            agent.metric("otelcol_receiver_accepted_profile_samples_total", ""),
            8
        );
        assert_eq!(agent.books("profile_samples"), 0);
        let capacity = agent.metric("otelcol_exporter_queue_capacity", "data_type=\"profiles\"");
        assert!(capacity > 0);
    }
}

#[tokio::test]
async fn profiles_that_waited_are_sent_one_by_one() {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Grpc(14, None)));
    let agent = start(&Setup::grpc(sink.address));
    let mut grpc = Grpc::connect(agent.port()).await;
    for number in 0..40 {
        let message = profiles(&format!("{number:02}"), &[1]).encode_to_vec();
        assert_eq!(grpc.call(GRPC, &message).await.unwrap().status, 0);
    }
    sink.always(None);
    eventually("all are delivered", || sink.taken().len() == 40).await;
    let mut names = names(&sink);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 40, "no request was merged with another");
}

#[tokio::test]
async fn profile_too_large_for_the_upstream_is_lost_whole() {
    let sink = Sink::grpc().await;
    sink.script([Reply::Says(8, TOO_LARGE)]);
    let agent = start(&Setup::grpc(sink.address));
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = profiles("large", &[7]).encode_to_vec();
    assert_eq!(grpc.call(GRPC, &message).await.unwrap().status, 0);
    let lost = "otelagent_lost_profile_samples_total";
    eventually("it is counted", || agent.metric(lost, "too_large") == 7).await;
    assert_eq!(sink.received().len(), 1);
    assert_eq!(agent.books("profile_samples"), 0);
}

#[tokio::test]
async fn profile_without_samples_is_forwarded_unlike_an_empty_request() {
    let sink = Sink::grpc().await;
    let agent = start(&Setup::grpc(sink.address));
    let mut grpc = Grpc::connect(agent.port()).await;
    assert_eq!(grpc.call(GRPC, b"").await.unwrap().status, 0);
    let payload = profiles("payload", &[0]).encode_to_vec();
    assert_eq!(grpc.call(GRPC, &payload).await.unwrap().status, 0);
    eventually("it is delivered", || names(&sink) == ["payload"]).await;
    assert_eq!(sink.received().len(), 1);
    assert_eq!(sink.taken()[0].message, payload);
}

#[tokio::test]
async fn profiles_without_a_pipeline_are_refused_for_good() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = profiles("a", &[1]).encode_to_vec();
    let answer = grpc.call(GRPC, &message).await.unwrap();
    assert_eq!(answer.status, 12);
    let mut http = Http::connect(agent.port()).await;
    assert_eq!(http.post(HTTP, &[], &message).await.unwrap().status, 404);
    assert_eq!(
        http.post("/v1/profiles", &[], &message)
            .await
            .unwrap()
            .status,
        404
    );
}
