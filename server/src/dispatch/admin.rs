//! Owns the requests about spaces, the map and the node itself.

use std::sync::Arc;

use fanfold_cluster::jobs::JobStatus;
use fanfold_protocol::message::{AlterSpace, CreateSpace, Response, StartJob};
use fanfold_protocol::{Reply, Status};

use super::{failed, status as failure};
use crate::listener::Shared;
use crate::translate;

pub(super) fn map(shared: &Shared) -> Response {
    Response::Map(translate::map(shared.node.map()))
}

pub(super) fn spaces(shared: &Shared) -> Response {
    Response::Spaces(shared.node.spaces().iter().map(translate::space_to_wire).collect())
}

pub(super) async fn create_space(shared: &Arc<Shared>, create: CreateSpace) -> Reply {
    let policy = translate::policy(&create.policy);
    let created = shared.node.create_space(&create.name, create.graph.as_deref(), policy).await;
    let created = created.map_err(|error| failure(shared, error, true))?;
    Ok(Response::Space(translate::space_to_wire(&created)))
}

pub(super) async fn alter_space(shared: &Arc<Shared>, alter: AlterSpace) -> Reply {
    let altered = shared.node.alter_space(&alter.name, translate::changes(&alter.changes)).await;
    let altered = altered.map_err(|error| failure(shared, error, true))?;
    Ok(Response::Space(translate::space_to_wire(&altered)))
}

pub(super) fn status(shared: &Shared) -> Response {
    Response::NodeStatus(translate::node_status(&shared.node.status()))
}

pub(super) async fn wait_drained(shared: &Arc<Shared>) -> Reply {
    let waited = shared.node.wait_drained().await;
    waited.map(|()| Response::Done).map_err(|error| failed(shared, error))
}

pub(super) fn accept_clock(shared: &Shared) -> Response {
    shared.node.accept_clock();
    Response::Done
}

pub(super) fn start_job(shared: &Arc<Shared>, start: StartJob) -> Reply {
    let started = shared.node.start_job(translate::job_kind(start.kind), start.bytes_per_second);
    job(Some(started.map_err(|error| failed(shared, error))?))
}

pub(super) fn job(status: Option<JobStatus>) -> Reply {
    status.map(|status| Response::Job(translate::job(status))).ok_or(Status::NotFound)
}
