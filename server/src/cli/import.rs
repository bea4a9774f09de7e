//! Owns the command `import`: what is imported from where, and what is said about it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use fanfold_client::Client;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::error::CliError;
use super::remote::Remote;
use crate::import::{
    BLOCK_ITEMS_MAX, Counts, Cut, Format, ImportError, Input, Kind, LaneState, Options, Output, Plan,
    Position, Run, STDIN, State, cut, extension,
};

const BAR: &str = "[{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg}";

/// Without a terminal, how it goes is said so often.
const SAY_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Imports edges: who follows whom, since when.
    #[command(after_help = "Lines are:
  TSV   READER <tab> OWNER [<tab> SINCE]
  JSON  {\"reader\": 1, \"owner\": 2, \"since\": \"2024-05-01T12:00:00Z\"}
SINCE is milliseconds since 1970 or a time as above, and the time of the import if it is not given.

Import entries first and edges then: it costs least.

Example:
  fanfold import follows follows.tsv.zst")]
    Follows {
        /// The graph.
        #[arg(long, default_value = "follows")]
        graph: String,
        #[command(flatten)]
        common: Common,
    },
    /// Imports entries with their times, in their order.
    #[command(after_help = "Lines are:
  TSV   OWNER <tab> TIME <tab> PAYLOAD [<tab> KEY <tab> AUTHOR <tab> AUDIENCE <tab> EXPIRES <tab> OWNER:ENTRY]
        An empty column is not given. In PAYLOAD and KEY, \\t \\n \\r \\\\ stand for the byte they name.
  JSON  {\"owner\": 2, \"time\": \"2024-05-01T12:00:00Z\", \"payload\": \"hello\"}
        and, if wanted, \"space\", \"key\", \"author\", \"audience\" (public, followers, private), \"expires\" (a time or never),
        \"version\", \"reference\" ({\"owner\": 3, \"id\": \"…\"}), \"payload_base64\" and \"key_base64\" for bytes that are no text,
        and \"id\" instead of \"time\", to keep the id of an export.
Times are milliseconds since 1970 or as above. Entries of one timeline get ids in the order of the lines if their times are equal.

Example:
  fanfold import entries posts.jsonl --space posts --ids-out ids.tsv")]
    Entries {
        /// The space of entries that name none.
        #[arg(long, default_value = "posts")]
        space: String,
        /// Writes file, line, key and id of each entry to this file.
        #[arg(long, value_name = "FILE")]
        ids_out: Option<PathBuf>,
        /// Goes on after a session was forgotten; lines that were sent without an answer may be imported twice.
        #[arg(long)]
        repeat_uncertain: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// The files, plain or zstd (`.zst`); `-` is standard input, which cannot be gone on with.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How the lines are written; otherwise the names of the files say so (.tsv, .json, .jsonl).
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Reads everything and says what is wrong, and imports nothing.
    #[arg(long)]
    dry_run: bool,
    /// At most so many lines a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Where lines that were not imported are listed: file, line, reason. Otherwise beside the first file, with `.rejects`.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Where it is noted how far the import is. Otherwise beside the first file, with `.import`.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
}

/// Imports.
pub(super) async fn run(args: ImportArgs) -> Result<(), CliError> {
    match args.what {
        What::Follows { graph, common } => {
            let job = Job { what: "follows", name: graph, ids_out: None, repeat_uncertain: false };
            import(common, job).await
        }
        What::Entries { space, ids_out, repeat_uncertain, common } => {
            import(common, Job { what: "entries", name: space, ids_out, repeat_uncertain }).await
        }
    }
}

struct Job {
    what: &'static str,
    /// The graph or space.
    name: String,
    ids_out: Option<PathBuf>,
    repeat_uncertain: bool,
}

/// What an import has to say at its end.
struct Summary {
    what: &'static str,
    counts: Counts,
    rejects: Option<PathBuf>,
    took: Duration,
    /// What earlier runs did.
    before: Counts,
}

async fn import(common: Common, job: Job) -> Result<(), CliError> {
    let format = format(&common)?;
    let rejects = common.rejects.clone().unwrap_or_else(|| beside(&common.files[0], ".rejects"));
    let started = Instant::now();
    if common.dry_run {
        let counts = dry_run(&common, &job, format)?;
        let summary = Summary {
            what: job.what,
            counts,
            rejects: common.rejects,
            took: started.elapsed(),
            before: counts,
        };
        return summary.say(&common.remote, true);
    }
    let what = job.what;
    let mut summary = None;
    common
        .remote
        .with_client(async |client| {
            let begun = begin(&common, &job, format, client).await?;
            let before = begun.1.counts;
            let state =
                if begun.1.done { begun.1 } else { go(&common, &job, client, &rejects, begun).await? };
            let counts = state.counts;
            let rejects = Some(rejects.clone());
            summary = Some(Summary { what, counts, rejects, took: started.elapsed(), before });
            Ok(())
        })
        .await?;
    summary.map_or(Ok(()), |summary| summary.say(&common.remote, false))
}

/// What is to be read how, and where it stands.
async fn begin(
    common: &Common,
    job: &Job,
    format: Format,
    client: &Client,
) -> Result<(Cut, State, Option<PathBuf>), CliError> {
    let failed = |error| common.remote.failed(error);
    let map = client.map().await.map_err(failed)?;
    let mut kind = kind(common, job, client).await?;
    let graph = match &kind {
        Kind::Follows => client.graph(job.name.as_str()).id().await.map_err(failed)?,
        Kind::Entries { .. } => fanfold_client::GraphId::default(),
    };
    let inputs: Result<Vec<Input>, ImportError> = common.files.iter().map(|path| Input::of(path)).collect();
    let plan = Plan {
        what: job.what.to_owned(),
        name: job.name.clone(),
        format,
        cluster: map.cluster.to_string(),
        partitions: map.partitions,
        inputs: inputs?,
    };
    let is_stdin = common.files.iter().any(|file| file == Path::new(STDIN));
    let state_path = common.state.clone().unwrap_or_else(|| beside(&common.files[0], ".import"));
    let state_path = (!is_stdin).then_some(state_path);
    let known = state_path.as_deref().map(State::load).transpose()?.flatten();
    let state = match known {
        Some(state) if state.plan == plan => state,
        Some(_) => return Err(ImportError::OtherImport { path: state_path.unwrap_or_default() }.into()),
        None => {
            let block_items = common.rate.map_or(BLOCK_ITEMS_MAX, |rate| (rate / 4).max(1) as usize);
            let mut lanes = Vec::new();
            for partition in 0..plan.partitions {
                let lane = client.import_lane(fanfold_client::PartitionId(partition), None).await;
                lanes.push(LaneState { session: lane.map_err(failed)?.session().0, next: 1 });
            }
            let spaces = match &kind {
                Kind::Follows => None,
                Kind::Entries { spaces, .. } => spaces.clone(),
            };
            let state = State {
                plan,
                spaces,
                block_items: block_items.min(BLOCK_ITEMS_MAX),
                lanes,
                position: Position::default(),
                counts: Counts::default(),
                written: [0; 2],
                done: false,
            };
            if let Some(path) = &state_path {
                state.save(path)?;
            }
            state
        }
    };
    if let (Kind::Entries { spaces, .. }, Some(known)) = (&mut kind, &state.spaces) {
        *spaces = Some(known.clone());
    }
    let (partitions, block_items) = (map.partitions, state.block_items);
    let cut = Cut { inputs: common.files.clone(), format, kind, graph, partitions, block_items };
    Ok((cut, state, state_path))
}

async fn kind(common: &Common, job: &Job, client: &Client) -> Result<Kind, CliError> {
    if job.what == "follows" {
        return Ok(Kind::Follows);
    }
    let failed = |error| common.remote.failed(error);
    let spaces = client.spaces().list().await.map_err(failed)?;
    client.spaces().show(job.name.as_str()).await.map_err(failed)?;
    let spaces = spaces.iter().map(|space| (space.name.clone(), space.into())).collect();
    Ok(Kind::Entries { space: job.name.clone(), spaces: Some(spaces) })
}

async fn go(
    common: &Common,
    job: &Job,
    client: &Client,
    rejects: &Path,
    (cut, state, state_path): (Cut, State, Option<PathBuf>),
) -> Result<State, CliError> {
    let bytes: Arc<AtomicU64> = Arc::default();
    let options = Options {
        state_path,
        rejects_path: Some(rejects.to_owned()),
        ids_path: job.ids_out.clone(),
        rate: common.rate,
        repeat_uncertain: job.repeat_uncertain,
        bytes: bytes.clone(),
    };
    let total = state.plan.inputs.iter().map(|input| input.bytes).sum();
    let mut progress = Progress::new(job.what, total, bytes);
    let run = Run::run(client, cut, state, options, &mut |counts| progress.show(counts)).await;
    progress.bar.finish_and_clear();
    run.map_err(|error| match error {
        ImportError::Call(error) if matches!(error, fanfold_client::Error::Connect { .. }) => {
            common.remote.failed(error)
        }
        error => error.into(),
    })
}

/// Reads everything; what is wrong is listed if a file was named for it.
fn dry_run(common: &Common, job: &Job, format: Format) -> Result<Counts, CliError> {
    let kind = if job.what == "follows" {
        Kind::Follows
    } else {
        Kind::Entries { space: job.name.clone(), spaces: None }
    };
    let (inputs, graph) = (common.files.clone(), fanfold_client::GraphId::default());
    let plan = Cut { inputs, format, kind, graph, partitions: 1, block_items: BLOCK_ITEMS_MAX };
    let mut rejects = Output::new(common.rejects.as_deref(), 0);
    let (mut counts, mut failed) = (Counts::default(), Ok(()));
    cut(&plan, Position::default(), &Arc::default(), |block| {
        counts.imported += block.items;
        counts.rejected += block.rejects.len() as u64;
        let path = plan.inputs[block.input].display();
        failed = block
            .rejects
            .iter()
            .try_for_each(|(line, reason)| rejects.line(format_args!("{path}\t{line}\t{reason}")));
        failed.is_ok()
    })?;
    failed?;
    rejects.sync()?;
    Ok(counts)
}

fn format(common: &Common) -> Result<Format, CliError> {
    if let Some(format) = common.format {
        return Ok(format);
    }
    let path = &common.files[0];
    match extension(path).as_deref() {
        Some("tsv") => Ok(Format::Tsv),
        Some("json" | "jsonl" | "ndjson") => Ok(Format::Json),
        _ => Err(ImportError::Format { path: path.clone() }.into()),
    }
}

/// A file beside an input.
fn beside(input: &Path, ending: &str) -> PathBuf {
    let mut name = if input == Path::new(STDIN) { "stdin".into() } else { input.as_os_str().to_owned() };
    name.push(ending);
    name.into()
}

/// How it goes: a bar on a terminal, otherwise a line from time to time.
struct Progress {
    what: &'static str,
    bar: ProgressBar,
    bytes: Arc<AtomicU64>,
    said: Instant,
}

impl Progress {
    fn new(what: &'static str, total: u64, bytes: Arc<AtomicU64>) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        // The template is a constant; were it wrong, the default style serves.
        let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        Self { what, bar, bytes, said: Instant::now() }
    }

    fn show(&mut self, counts: &Counts) {
        let text = format!("{} {}, {} rejected", counts.imported + counts.known, self.what, counts.rejected);
        self.bar.set_position(self.bytes.load(Ordering::Relaxed));
        if !std::io::stderr().is_terminal() && self.said.elapsed() >= SAY_EVERY {
            eprintln!("{text}");
            self.said = Instant::now();
        }
        self.bar.set_message(text);
    }
}

impl Summary {
    fn say(self, remote: &Remote, is_dry: bool) -> Result<(), CliError> {
        let Self { what, counts, rejects, took, before } = self;
        let done = counts.imported + counts.known - before.imported - before.known;
        let per_second = done as f64 / took.as_secs_f64().max(1e-3);
        let rejects = rejects.filter(|_| counts.rejected > 0);
        remote.output.show(
            || {
                json!({
                    "dry_run": is_dry,
                    "imported": if is_dry { 0 } else { counts.imported },
                    "well_formed": is_dry.then_some(counts.imported),
                    "known": counts.known,
                    "rejected": counts.rejected,
                    "rejects": rejects,
                    "seconds": took.as_secs_f64(),
                    "per_second": per_second,
                })
            },
            || {
                let did = if is_dry { "well-formed" } else { "imported" };
                let Counts { imported, known, rejected } = counts;
                let known = if known > 0 { format!(", {known} there before") } else { String::new() };
                let time = format!("; {:.1} s, {per_second:.0} a second", took.as_secs_f64());
                let time = if is_dry { String::new() } else { time };
                format!("{imported} {what} {did}{known}, {rejected} rejected{time}")
            },
        )?;
        if counts.rejected > 0 {
            return Err(CliError::SomeRejected { rejected: counts.rejected, rejects });
        }
        Ok(())
    }
}
