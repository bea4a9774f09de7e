//! Owns the command `import`: what is imported from where, and what is said about it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use fanfold_client::{Client, Stamp};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::error::CliError;
use super::remote::Remote;
use crate::import::{
    BLOCK_ITEMS_MAX, Counts, Cut, Format, Held, ImportError, Input, Judge, Kind, LaneState, Options, Output,
    Plan, Position, Run, State, dry_run, extension, is_stream, named_as_packed, refuse_held,
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
        /// Writes file, line, key and id of each entry to this file; `-` is stdout.
        #[arg(long, value_name = "FILE", value_parser = output_path)]
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
    /// The files, plain or packed with zstd; `-` is standard input. It and pipes cannot be gone on with.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How the lines are written; otherwise the names of the files say so (.tsv, .json, .jsonl).
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Reads everything, asks a node for spaces or graph, says what is wrong and what was not checked, and imports nothing.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: asks no node.
    #[arg(long, requires = "dry_run")]
    offline: bool,
    /// At most so many lines a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Where lines that were not imported are listed: file, line, reason. Otherwise beside the first file, with `.rejects`. A dry run
    /// lists them only in a file that is named, and overwrites none.
    #[arg(long, value_name = "FILE", value_parser = output_path)]
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

/// Where lines are written: `-` stands for stdout.
#[expect(clippy::unnecessary_wraps, reason = "how the parsers of arguments are")]
fn output_path(text: &str) -> Result<PathBuf, String> {
    Ok(if text == "-" { "/dev/stdout".into() } else { text.into() })
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
    kind: Ran,
}

/// What a run was.
enum Ran {
    /// It went on to the end.
    ToTheEnd,
    /// It had come to the end before, as this file says.
    Before { state: PathBuf },
    /// It imported nothing.
    Dry { not_checked: Vec<&'static str> },
}

async fn import(common: Common, job: Job) -> Result<(), CliError> {
    let format = format(&common)?;
    let rejects = common.rejects.clone().unwrap_or_else(|| beside(&common.files[0], ".rejects"));
    check_outputs(&common, &job, &rejects)?;
    let named: Vec<_> = common.files.iter().filter(|file| !is_stream(file)).cloned().collect();
    crate::export::check(&named).map_err(ImportError::from)?;
    if common.state.is_some() && !common.dry_run && state_path(&common).is_none() {
        eprintln!("fanfold: --state has no effect: pipes and standard input cannot be gone on with");
    }
    let started = Instant::now();
    let mut summary = None;
    if common.dry_run {
        let (kind, judge) = dry(&common, &job).await?;
        let not_checked = judge.not_checked(&kind);
        let (bytes, total) = (Arc::default(), total(&common)?);
        let mut progress = Progress::new(job.what, total, Arc::clone(&bytes));
        let (files, rejects) = (common.files.clone(), common.rejects.clone());
        let show = |counts: &Counts| progress.show(counts);
        let counts = dry_run(files, (format, kind), &judge, rejects.as_deref(), &bytes, show);
        progress.bar.finish_and_clear();
        let (counts, took, kind) = (counts?, started.elapsed(), Ran::Dry { not_checked });
        summary = Some(Summary { what: job.what, counts, rejects, took, before: counts, kind });
    } else {
        let what = job.what;
        let _held = state_path(&common).as_deref().map(Held::take).transpose()?;
        let run = async |client: &Client| {
            let begun = begin(&common, &job, format, client).await?;
            let before = begun.state.counts;
            let (state, kind) = match begun {
                Begun { state, state_path, .. } if state.done => {
                    (state, Ran::Before { state: state_path.unwrap_or_default() })
                }
                begun => (go(&common, &job, client, &rejects, begun).await?, Ran::ToTheEnd),
            };
            let (counts, took) = (state.counts, started.elapsed());
            summary = Some(Summary { what, counts, rejects: Some(rejects), took, before, kind });
            Ok(())
        };
        common.remote.with_client(run).await?;
    }
    summary.map_or(Ok(()), |summary| summary.say(&common.remote))
}

/// Whether nothing is named that would be overwritten.
fn check_outputs(common: &Common, job: &Job, rejects: &Path) -> Result<(), ImportError> {
    let mut named: Vec<(&Path, &'static str)> =
        common.files.iter().filter(|file| !is_stream(file)).map(|file| (&**file, "an input")).collect();
    let state = state_path(common);
    // A dry run leaves an import alone that was begun before, with its list.
    let begun = state.as_deref().filter(|path| common.dry_run && path.exists());
    let list = beside(&common.files[0], ".rejects");
    if let Some(state) = begun {
        named.extend([(state, "the state file of an import"), (&list, "the list of rejects of an import")]);
    }
    let writes_rejects = !common.dry_run || common.rejects.is_some();
    let outputs = [
        (writes_rejects.then_some(rejects), "the list of rejects"),
        (job.ids_out.as_deref().filter(|_| !common.dry_run), "the list of ids"),
        (state.as_deref().filter(|_| !common.dry_run), "the state file"),
    ];
    for (path, what) in outputs {
        let Some(path) = path.filter(|path| !is_stream(path)) else { continue };
        if let Some((_, other)) = named.iter().find(|(other, _)| place_of(other) == place_of(path)) {
            return Err(ImportError::SameFile { path: path.to_owned(), one: other, other: what });
        }
        named.push((path, what));
    }
    // It may be the list of an import, which goes on with it or was done before.
    Some(rejects).filter(|_| common.dry_run && writes_rejects).map_or(Ok(()), refuse_held)
}

/// Where a file is or would be, however it is named.
fn place_of(path: &Path) -> PathBuf {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = || Some(dir.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(made).unwrap_or_else(|| path.to_owned())
}

/// Where it is noted how far an import is; none if it cannot be gone on with.
fn state_path(common: &Common) -> Option<PathBuf> {
    let is_stream = common.files.iter().any(|file| is_stream(file));
    let path = || common.state.clone().unwrap_or_else(|| beside(&common.files[0], ".import"));
    (!is_stream).then(path)
}

/// How much there is to read.
fn total(common: &Common) -> Result<u64, ImportError> {
    common.files.iter().map(|path| Ok(Input::of(path)?.bytes)).sum()
}

/// What is to be read, and what it is judged by.
async fn dry(common: &Common, job: &Job) -> Result<(Kind, Judge), CliError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let now = Stamp::from_unix_ms(now).unwrap_or_default();
    let (mut asked, mut spaces) = (None, None);
    if !common.offline {
        let ask = async |client: &Client| {
            let kind = kind(common, job, client).await?;
            if matches!(kind, Kind::Follows) {
                client.graph(job.name.as_str()).id().await.map_err(|error| common.remote.failed(error))?;
            }
            let all = client.spaces().list().await.map_err(|error| common.remote.failed(error))?;
            (asked, spaces) = (Some(kind), Some(all));
            Ok(())
        };
        common.remote.with_client(ask).await?;
    }
    let kind = asked.unwrap_or_else(|| match job.what {
        "follows" => Kind::Follows,
        _ => Kind::Entries { space: job.name.clone(), spaces: None },
    });
    Ok((kind, Judge::new(now, spaces)))
}

/// An import that begins or goes on.
struct Begun {
    cut: Cut,
    state: State,
    state_path: Option<PathBuf>,
    /// No run before this one has written anything.
    is_new: bool,
}

/// What is to be read how, and where it stands.
async fn begin(common: &Common, job: &Job, format: Format, client: &Client) -> Result<Begun, CliError> {
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
    let state_path = state_path(common);
    let known = state_path.as_deref().map(State::load).transpose()?.flatten();
    let is_new = known.is_none();
    if is_new {
        // Before there is a state file, with which they would pass for this import's own.
        common.rejects.iter().chain(&job.ids_out).try_for_each(|path| refuse_held(path))?;
    }
    let wanted_items = common.rate.map_or(BLOCK_ITEMS_MAX as u64, |rate| rate / 4);
    let wanted_items = (wanted_items as usize).clamp(1, BLOCK_ITEMS_MAX);
    let state = if let Some(state) = known {
        refuse_change(&state, &plan, job, state_path.as_deref())?;
        state
    } else {
        let mut lanes = Vec::new();
        for partition in 0..plan.partitions {
            let lane = client.import_lane(fanfold_client::PartitionId(partition), None).await;
            lanes.push(LaneState::new(lane.map_err(failed)?.session().0));
        }
        let spaces = match &kind {
            Kind::Follows => None,
            Kind::Entries { spaces, .. } => spaces.clone(),
        };
        let state = State {
            plan,
            spaces,
            block_items: wanted_items,
            lanes,
            position: Position::default(),
            counts: Counts::default(),
            written: [0; 2],
            moved: [false; 2],
            done: false,
        };
        if let Some(path) = &state_path {
            state.save(path)?;
        }
        state
    };
    if let (Kind::Entries { spaces, .. }, Some(known)) = (&mut kind, &state.spaces) {
        *spaces = Some(known.clone());
    }
    let (inputs, partitions) = (common.files.clone(), map.partitions);
    let (block_items, later_items) = (state.block_items, wanted_items);
    let cut = Cut { inputs, format, kind, graph, partitions, block_items, later_items };
    Ok(Begun { cut, state, state_path, is_new })
}

/// Refuses to go on with what is another import, or would list only some of the ids.
fn refuse_change(state: &State, plan: &Plan, job: &Job, path: Option<&Path>) -> Result<(), ImportError> {
    let path = path.unwrap_or(Path::new("")).to_owned();
    if let Some(differs) = state.plan.differs(plan) {
        return Err(ImportError::OtherImport { path, differs });
    }
    let are_wanted = job.ids_out.is_some();
    let lacks_some = match state.has_ids() {
        // Of one that is done nothing is left to be written.
        Some(true) => !are_wanted && !state.done,
        Some(false) => are_wanted,
        None => false,
    };
    if lacks_some { Err(ImportError::Ids { are_wanted, path }) } else { Ok(()) }
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
    Begun { cut, state, state_path, is_new }: Begun,
) -> Result<State, CliError> {
    let bytes: Arc<AtomicU64> = Arc::default();
    let known = |n: usize| (!is_new).then(|| (state.written[n], state.moved[n]));
    let options = Options {
        state_path,
        rejects: Output::open(Some(rejects), known(0))?,
        ids: Output::open(job.ids_out.as_deref(), known(1))?,
        rate: common.rate,
        repeat_uncertain: job.repeat_uncertain,
        bytes: bytes.clone(),
    };
    let total = state.plan.inputs.iter().map(|input| input.bytes).sum();
    let mut progress = Progress::new(job.what, total, bytes);
    let run = Run::run(client, cut, state, options, &mut |counts| progress.show(counts)).await;
    progress.bar.finish_and_clear();
    Ok(run?)
}

fn format(common: &Common) -> Result<Format, ImportError> {
    if let Some(format) = common.format {
        return Ok(format);
    }
    let first = &common.files[0];
    let format = format_of(first).ok_or_else(|| match named_as_packed(first) {
        Some(with) => ImportError::Packed { path: first.clone(), with },
        None => ImportError::Format { path: first.clone() },
    })?;
    let differs = |path: &&PathBuf| format_of(path).is_some_and(|other| other != format);
    match common.files.iter().find(differs) {
        Some(other) => Err(ImportError::Mixed { first: first.clone(), other: other.clone() }),
        None => Ok(format),
    }
}

fn format_of(path: &Path) -> Option<Format> {
    match extension(path).as_deref() {
        Some("tsv") => Some(Format::Tsv),
        Some("json" | "jsonl" | "ndjson") => Some(Format::Json),
        _ => None,
    }
}

/// A file beside an input.
fn beside(input: &Path, ending: &str) -> PathBuf {
    let mut name = if is_stream(input) { "stdin".into() } else { input.as_os_str().to_owned() };
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
    fn say(self, remote: &Remote) -> Result<(), CliError> {
        let Self { what, counts, rejects, took, before, kind } = self;
        let Counts { imported, known, rejected } = counts;
        let new = imported - before.imported;
        let per_second = (new + known - before.known) as f64 / took.as_secs_f64().max(1e-3);
        let rejects = rejects.filter(|path| rejected > 0 && path.exists());
        let (is_dry, done_before) = (matches!(kind, Ran::Dry { .. }), matches!(kind, Ran::Before { .. }));
        remote.output.show(
            || {
                let mut all = json!({
                    "dry_run": is_dry,
                    "imported": if is_dry { 0 } else { imported },
                    "well_formed": is_dry.then_some(imported),
                    "new": new,
                    "done_before": done_before,
                    "known": known,
                    "rejected": rejected,
                    "rejects": rejects,
                    "seconds": took.as_secs_f64(),
                    "per_second": per_second,
                });
                if let Ran::Dry { not_checked } = &kind {
                    all["not_checked"] = json!(not_checked);
                }
                all
            },
            || {
                let known = if known > 0 { format!(", {known} there before") } else { String::new() };
                let all = format!("{known}, {rejected} rejected");
                match &kind {
                    Ran::Dry { not_checked } => {
                        let not_checked = not_checked.join("; ");
                        format!("{imported} {what} well-formed{all}\nnot checked: {not_checked}")
                    }
                    Ran::Before { state } => format!(
                        "0 new: this import was done before, as {} says: {imported} {what} imported{all}",
                        state.display()
                    ),
                    Ran::ToTheEnd => {
                        let before = before.imported;
                        let before = if before > 0 {
                            format!(", {before} of them by earlier runs")
                        } else {
                            String::new()
                        };
                        let time = format!("{:.1} s, {per_second:.0} a second", took.as_secs_f64());
                        format!("{imported} {what} imported{before}{all}; {time}")
                    }
                }
            },
        )?;
        if rejected > 0 {
            return Err(CliError::SomeRejected { rejected, rejects });
        }
        Ok(())
    }
}
