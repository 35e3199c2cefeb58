//! One request: its time limit, its pages, and what an error of it means.

use std::fmt::Debug;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, ObjectList};
use kube::core::Request;
use kube::{Api, Resource};
use otelagent_core::in_full;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Cluster;
use crate::error::{CliError, Right};

/// How many objects one page of a list has. Larger pages are slower to begin, smaller ones take more round trips.
const PAGE: u32 = 2000;

/// What is asked for: a resource by its names.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its plural.
    pub plural: String,
    /// Its group; empty for the core group.
    pub group: String,
}

impl Kind {
    /// That of a type.
    pub fn of<K: Resource>(kind: &K::DynamicType) -> Self {
        Self {
            plural: K::plural(kind).into_owned(),
            group: K::group(kind).into_owned(),
        }
    }

    /// As RBAC writes it in commands.
    pub(super) fn shown(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

/// The API of one admission kind; the client library has no types for servers this new.
pub fn admission_kind(kind: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    ApiResource::from_gvk(&kind)
}

impl Cluster {
    /// Objects of a kind, in one namespace or in all.
    ///
    /// # Errors
    /// If the API server refuses, or cannot be asked.
    pub async fn list<K>(
        &self,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<Vec<K>, CliError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        self.list_as::<K, K>(namespace, params).await
    }

    /// The same, of which only the fields of a type are read.
    ///
    /// # Errors
    /// If the API server refuses, or cannot be asked.
    pub async fn list_as<K, T>(
        &self,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<Vec<T>, CliError>
    where
        K: Resource<DynamicType = ()>,
        T: Clone + DeserializeOwned,
    {
        let (path, kind) = (K::url_path(&(), namespace), Kind::of::<K>(&()));
        self.list_of(&path, &kind, namespace, params).await
    }

    /// Objects of a kind that the client library does not know.
    ///
    /// # Errors
    /// If the API server refuses, or cannot be asked.
    pub async fn list_dynamic(
        &self,
        kind: &ApiResource,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<Vec<DynamicObject>, CliError> {
        let path = DynamicObject::url_path(kind, namespace);
        let named = Kind::of::<DynamicObject>(kind);
        self.list_of(&path, &named, namespace, params).await
    }

    /// The first of the objects of a kind, at most as many as `params` say.
    ///
    /// # Errors
    /// If the API server refuses, or cannot be asked.
    pub async fn page<K>(
        &self,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<Vec<K>, CliError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let path = K::url_path(&(), namespace);
        let kind = Kind::of::<K>(&());
        let page = self.page_of(&path, &kind, namespace, params).await?;
        Ok(page.items)
    }

    async fn page_of<T>(
        &self,
        path: &str,
        kind: &Kind,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<ObjectList<T>, CliError>
    where
        T: Clone + DeserializeOwned,
    {
        let request = Request::new(path).list(params);
        let request = request.map_err(|error| CliError::Internal(in_full(&error)))?;
        let answer = self.client.request::<ObjectList<T>>(request);
        self.bounded(answer, "list", kind, namespace).await
    }

    async fn list_of<T>(
        &self,
        path: &str,
        kind: &Kind,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<Vec<T>, CliError>
    where
        T: Clone + DeserializeOwned,
    {
        let (mut params, mut found) = (params.clone().limit(PAGE), Vec::new());
        loop {
            let page = self.page_of(path, kind, namespace, &params).await?;
            found.extend(page.items);
            match page.metadata.continue_ {
                Some(next) if !next.is_empty() => params.continue_token = Some(next),
                _ => return Ok(found),
            }
        }
    }

    /// One object; `None` if it does not exist.
    ///
    /// # Errors
    /// If the API server refuses, or cannot be asked.
    pub async fn get<K>(
        &self,
        api: &Api<K>,
        kind: &K::DynamicType,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<K>, CliError>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        self.bounded(api.get_opt(name), "get", &Kind::of::<K>(kind), namespace)
            .await
    }

    /// One object as it is; `None` if it does not exist.
    ///
    /// # Errors
    /// If the API server refuses, or cannot be asked.
    pub async fn object(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, CliError> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        let path = format!("{}/{name}", DynamicObject::url_path(&resource, namespace));
        let request = http::Request::get(path).body(Vec::new());
        let request = request.map_err(|error| CliError::Internal(in_full(&error)))?;
        let named = Kind::of::<DynamicObject>(&resource);
        let answer = self.client.request::<Value>(request);
        match self.bounded(answer, "get", &named, namespace).await {
            // Of an object that is asked for by name, the same answer means that it does not exist.
            Err(CliError::NotServed(_)) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Whether the API server serves an admission kind.
    ///
    /// # Errors
    /// If the API server cannot be asked.
    pub async fn serves_admission(&self, kind: &str) -> Result<bool, CliError> {
        let asked = self
            .client
            .list_api_group_resources("admissionregistration.k8s.io/v1");
        let named = Kind {
            plural: "/apis/admissionregistration.k8s.io/v1".into(),
            group: String::new(),
        };
        let served = self.bounded(asked, "get", &named, None).await?;
        Ok(served.resources.iter().any(|known| known.kind == kind))
    }

    /// The text of a page of a pod, through the API server. The user needs the right to get `pods/proxy`.
    ///
    /// # Errors
    /// If the API server refuses, or the pod cannot be asked.
    pub async fn of_pod(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        page: &str,
    ) -> Result<String, CliError> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{page}");
        let request = http::Request::get(path).body(Vec::new());
        let request = request.map_err(|error| CliError::Internal(in_full(&error)))?;
        let kind = Kind {
            plural: "pods/proxy".into(),
            group: String::new(),
        };
        let asked = self.client.request_text(request);
        self.bounded(asked, "get", &kind, Some(namespace)).await
    }

    /// Limits the time of a request, and says what its error means.
    pub(super) async fn bounded<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
        verb: &'static str,
        kind: &Kind,
        namespace: Option<&str>,
    ) -> Result<T, CliError> {
        let resource = kind.shown();
        match tokio::time::timeout(self.limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(&error, verb, resource, namespace)),
            Err(_) => Err(CliError::TimedOut {
                action: format!("{verb} {resource}"),
                seconds: self.limit.as_secs(),
            }),
        }
    }

    fn failed(
        &self,
        error: &kube::Error,
        verb: &'static str,
        resource: String,
        namespace: Option<&str>,
    ) -> CliError {
        let kube::Error::Api(status) = error else {
            return CliError::Unreachable {
                server: self.server.clone(),
                why: cause(error),
            };
        };
        match status.code {
            401 => CliError::Unauthorized,
            403 => CliError::Forbidden(Right {
                verb,
                resource,
                namespace: namespace.map(str::to_owned),
            }),
            404 => CliError::NotServed(not_served(&resource)),
            _ => CliError::Refused {
                action: format!("{verb} {resource}"),
                why: status.message.clone(),
            },
        }
    }
}

fn not_served(resource: &str) -> String {
    if resource.ends_with(otelagent_core::names::GROUP) {
        return "otelagent is not installed in this cluster: the API server knows no OtelAgents; kubectl otelagent check --pre \
                says what an installation needs"
            .into();
    }
    format!("the API server does not serve {resource}")
}

/// The innermost cause, which says more than the layers around it.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
