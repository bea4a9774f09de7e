//! Owns the administration of spaces: list, show, create, alter.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{AlterSpace, CreateSpace, FanOut, SpaceChanges, SpaceInfo, SpacePolicy};
use fanfold_protocol::{Request, Response};
use futures_util::future::BoxFuture;

use crate::call::Call;
use crate::core::{Core, Effect};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::router::Target;

/// The definitions of the cluster's spaces.
#[derive(Debug, Clone)]
pub struct Spaces {
    core: Arc<Core>,
}

impl Spaces {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The policy of a space about which nothing was said: entries live for ever, feeds keep 800 ready and have no
    /// horizon, owners above 10,000 local followers are pulled, payloads have at most 64 KiB.
    pub fn default_policy() -> SpacePolicy {
        SpacePolicy {
            default_ttl_ms: None,
            feed_cap: 800,
            horizon_ms: None,
            fan_out: FanOut::Auto,
            pull_threshold: 10_000,
            payload_bytes_max: 64 * 1024,
            is_read_only: false,
        }
    }

    /// All spaces, by id.
    pub fn list(&self) -> Call<Vec<SpaceInfo>> {
        Call::new(self.core.clone(), |core, deadline| async move { core.list_spaces(deadline).await })
    }

    /// One space, by name; [`Error::UnknownSpace`] names the ones there are.
    pub fn show(&self, name: impl Into<String>) -> Call<SpaceInfo> {
        let name = name.into();
        Call::new(self.core.clone(), move |core, deadline| async move {
            let spaces = core.list_spaces(deadline).await?;
            let known = || spaces.iter().map(|space| space.name.clone()).collect();
            spaces
                .iter()
                .find(|space| space.name == name)
                .cloned()
                .ok_or_else(|| Error::UnknownSpace { name: name.clone(), known: known() })
        })
    }

    /// Makes a space, of the graph `follows` if no other is given. Its graph can never be changed.
    ///
    /// Not sent twice: if the connection breaks meanwhile the error says that it may have applied.
    pub fn create(&self, name: impl Into<String>, policy: SpacePolicy) -> CreateSpaceCall {
        CreateSpaceCall {
            core: self.core.clone(),
            request: CreateSpace { name: name.into(), graph: None, policy },
            deadline: None,
        }
    }

    /// Changes the rules of a space; answered when every partition follows the new ones.
    pub fn alter(&self, name: impl Into<String>, changes: SpaceChanges) -> Call<SpaceInfo> {
        let request = Request::AlterSpace(AlterSpace { name: name.into(), changes });
        Call::new(self.core.clone(), move |core, deadline| async move {
            // The changes are absolute values, so that applying them twice is applying them once.
            define(&core, request, Effect::Idempotent, deadline).await
        })
    }
}

/// A space to be made when this is awaited.
#[derive(Debug, Clone)]
#[must_use = "a space is only made when this is awaited"]
pub struct CreateSpaceCall {
    core: Arc<Core>,
    request: CreateSpace,
    deadline: Option<Duration>,
}

impl CreateSpaceCall {
    /// The name of its graph, which is made if there is none. Default `follows`.
    pub fn graph(mut self, name: impl Into<String>) -> Self {
        self.request.graph = Some(name.into());
        self
    }

    /// How long this call may take.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl IntoFuture for CreateSpaceCall {
    type Output = Result<SpaceInfo, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = self.core.deadline(self.deadline);
        Box::pin(async move {
            define(&self.core, Request::CreateSpace(self.request), Effect::Once, deadline).await
        })
    }
}

async fn define(
    core: &Core,
    request: Request,
    effect: Effect,
    deadline: Deadline,
) -> Result<SpaceInfo, Error> {
    match core.ask(Target::AnyNode, &request, effect, deadline).await? {
        Response::Space(space) => {
            core.forget_names();
            Ok(space)
        }
        _ => Err(Error::unexpected_write()),
    }
}
