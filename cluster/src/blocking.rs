//! Owns where work is done that blocks: on a thread for such work, or in place on a thread that was told so.
//!
//! - Work in the background has threads of its own, which give way: where applying wants the processor, it gets it. So does what
//!   fills a replica, which gives way to that too.
//! - In place, everything happens in one order, which is what a simulation repeats.
//! - There a log has no threads either: its work is a task, and every batch waits for as long as its disk is said to take.

use std::cell::RefCell;
use std::num::NonZero;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fanfold_storage::fs::FileSystem;
use fanfold_storage::log::{self, Driver, Due, Log, LogOptions, Recovered};
use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinError;

/// How long a log's disk takes for the next batch, by the log's directory.
pub type DiskTime = dyn Fn(&Path) -> Duration + Send + Sync;

thread_local! {
    static IN_PLACE: RefCell<Option<Arc<DiskTime>>> = const { RefCell::new(None) };
}

/// From now on, what this thread's tasks have to do that blocks is done in place. For simulations, whose disks keep nobody
/// waiting but by `disk_time`.
pub fn work_in_place_on_this_thread(disk_time: Arc<DiskTime>) {
    IN_PLACE.set(Some(disk_time));
}

fn in_place() -> Option<Arc<DiskTime>> {
    IN_PLACE.with_borrow(Clone::clone)
}

/// Does work that blocks, and waits for it; an error if it panicked on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if in_place().is_some() { Ok(work()) } else { tokio::task::spawn_blocking(work).await }
}

/// How far threads for work in the background stand back, of 19.
const BACKGROUND_NICE: i32 = 5;

/// How far those do that fill a replica, which serves nobody yet: a tenth of the processor where everybody wants it.
const FILLING_NICE: i32 = 10;

/// Of so many cores one may be filling: those that fill would take the processor from each other while they hold their states.
const FILLING_CORES: usize = 4;

/// So many threads at most do the other work in the background.
const BACKGROUND_MAX: usize = 512;

/// How long such a thread waits for more.
const BACKGROUND_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Does work in the background that blocks, and waits for it; an error if it panicked on a thread of its own.
pub(crate) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    stand_back(background(), work).await
}

/// Does work that blocks and fills a replica, and waits for it; an error if it panicked on a thread of its own.
pub(crate) async fn filling<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    static THREADS: Threads = Threads::new();
    let filling = || threads("filling", FILLING_NICE, (cores() / FILLING_CORES).max(1));
    stand_back(THREADS.get_or_init(filling).as_ref(), work).await
}

/// What takes long to free: a thread in the background does that, so that whoever lets go of it last is not held up.
#[derive(Debug)]
pub(crate) struct FreedBeside<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> FreedBeside<T> {
    pub fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Send + 'static> Deref for FreedBeside<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it goes when this does")
    }
}

impl<T: Send + 'static> Drop for FreedBeside<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        match background() {
            Some(threads) if in_place().is_none() => drop(threads.spawn_blocking(move || drop(value))),
            _ => drop(value),
        }
    }
}

fn background() -> Option<&'static Runtime> {
    static THREADS: Threads = Threads::new();
    THREADS.get_or_init(|| threads("background", BACKGROUND_NICE, BACKGROUND_MAX)).as_ref()
}

/// Threads of the whole process; none if there can be none.
type Threads = OnceLock<Option<Runtime>>;

async fn stand_back<T: Send + 'static>(
    threads: Option<&Runtime>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match threads {
        Some(threads) if in_place().is_none() => threads.spawn_blocking(work).await,
        _ => blocking(work).await,
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// So many threads at most that stand back so far.
fn threads(name: &str, nice: i32, threads_max: usize) -> Option<Runtime> {
    let give_way = move || {
        // Either is of the thread alone; without it, the work takes its share as others do.
        let stands_back = getpriority_process(None).is_ok_and(|own| own >= nice);
        if !stands_back && let Err(error) = setpriority_process(None, nice) {
            tracing::debug!(%error, "threads in the background do not give way");
        }
    };
    let mut threads = Builder::new_current_thread();
    threads.thread_name(name).on_thread_start(give_way).thread_keep_alive(BACKGROUND_KEEP_ALIVE);
    threads.max_blocking_threads(threads_max);
    threads.build().ok()
}

/// Opens a log whose work is done where this thread's is.
pub async fn open_log(
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    options: LogOptions,
) -> Result<Result<(Log, Recovered), log::OpenError>, JoinError> {
    let Some(disk_time) = in_place() else {
        // Opening reads the whole log.
        return tokio::task::spawn_blocking(move || Log::open(fs, &dir, options)).await;
    };
    let woken = Arc::new(Notify::new());
    let wake = {
        let woken = woken.clone();
        move || woken.notify_one()
    };
    Ok(Log::open_driven(fs, &dir, options, wake).map(|(log, driver, recovered)| {
        tokio::spawn(drive(driver, woken, dir, disk_time));
        (log, recovered)
    }))
}

/// Does the work of a log until it ends.
async fn drive(mut driver: Driver, woken: Arc<Notify>, dir: PathBuf, disk_time: Arc<DiskTime>) {
    loop {
        let quiet = match driver.due() {
            Due::Now => {
                tokio::time::sleep(disk_time(&dir)).await;
                false
            }
            Due::WhenQuietFor(time) => tokio::select! {
                biased;
                () = woken.notified() => continue,
                () = tokio::time::sleep(time) => true,
            },
            Due::WhenWoken => {
                woken.notified().await;
                continue;
            }
        };
        if !driver.step(quiet) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use fanfold_storage::fs::FaultFs;
    use fanfold_storage::log::{GroupId, Record};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_in_the_background_gives_way_and_other_work_does_not() {
        let nice = || getpriority_process(None).unwrap();
        let own = nice();
        assert_eq!(in_background(nice).await.unwrap(), own.max(BACKGROUND_NICE));
        assert_eq!(filling(nice).await.unwrap(), own.max(FILLING_NICE));
        assert_eq!(blocking(nice).await.unwrap(), own);
        assert!(in_background(|| panic!("on purpose")).await.unwrap_err().is_panic());
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_thread_that_was_told_everything_is_done_in_place() {
        let here = thread::current().id();
        assert_ne!(blocking(|| thread::current().id()).await.unwrap(), here);
        work_in_place_on_this_thread(Arc::new(|_| Duration::from_secs(3)));
        assert_eq!(blocking(|| thread::current().id()).await.unwrap(), here);
        let fs = Arc::new(FaultFs::new());
        let opened = open_log(fs.clone(), "/log".into(), LogOptions::default()).await.unwrap();
        let (log, _) = opened.unwrap();
        let (done, durable) = oneshot::channel();
        let completion = Box::new(move |result| {
            let _ = done.send((thread::current().id(), result));
        });
        let began = tokio::time::Instant::now();
        let vote = Record::Vote { group: GroupId(1), data: "vote".into() };
        log.submit(vec![vote], Some(completion)).unwrap();
        let (where_it_ran, result) = durable.await.unwrap();
        result.unwrap();
        assert_eq!((where_it_ran, began.elapsed()), (here, Duration::from_secs(3)));
    }
}
