//! Owns the calls about jobs: long pieces of work of a node on its own files.

use fanfold_protocol::message::{JobStatus, StartJob};
use fanfold_protocol::{NodeId, Request, Response};

use crate::call::Call;
use crate::client::Client;
use crate::core::Effect;
use crate::error::Error;
use crate::router::Target;

impl Client {
    /// Starts a job on a node; one runs there at a time.
    pub fn start_job(&self, node: NodeId, start: StartJob) -> Call<JobStatus> {
        self.ask_job(node, Request::StartJob(start), Effect::Once)
    }

    /// How a job of a node is.
    pub fn job(&self, node: NodeId, job: u64) -> Call<JobStatus> {
        self.ask_job(node, Request::GetJob(job), Effect::None)
    }

    /// Ends a job of a node soon.
    pub fn cancel_job(&self, node: NodeId, job: u64) -> Call<JobStatus> {
        self.ask_job(node, Request::CancelJob(job), Effect::Idempotent)
    }

    fn ask_job(&self, node: NodeId, request: Request, effect: Effect) -> Call<JobStatus> {
        Call::new(self.core.clone(), move |core, deadline| async move {
            match core.ask(Target::Node(node), &request, effect, deadline).await? {
                Response::Job(status) => Ok(status),
                _ => Err(Error::unexpected_read()),
            }
        })
    }
}
