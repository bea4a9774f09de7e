//! Owns the command line of the one binary `fanfold`: what the commands are, and what the process says and returns.
//!
//! - Results go to stdout, everything else to stderr.
//! - The exit code is 0 when done, 1 when it failed, 2 when it was called wrongly, 3 when an import is done and left lines out.

mod admin;
mod backup;
mod change;
mod cluster;
mod entry;
mod error;
mod explain;
mod export;
mod fan_out;
mod feed;
mod health;
mod hot;
mod images;
mod import;
mod inspect;
mod inspect_dir;
mod inspect_files;
mod job;
mod jobs;
mod lost;
mod node;
mod output;
mod partition;
mod progress;
mod relate;
mod remote;
mod space;
mod start;
mod status;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::CliError;

/// A timeline server: posts, follows, and merged home feeds.
#[derive(Debug, Parser)]
#[command(
    name = "fanfold",
    version,
    after_help = "Examples:\n  fanfold start &\n  fanfold follow 1 2\n  fanfold post 2 'hello'\n  fanfold feed 1"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a node; without any argument, a complete single-node cluster.
    Start(start::StartArgs),
    /// Shows what Fanfold does, on a node of its own: posts, follows, reads, a hard kill, and every feed checked.
    #[command(after_help = "Example:\n  fanfold demo --users 20000 --seed 7")]
    Demo(crate::demo::DemoArgs),
    /// Creates, lists, shows and alters spaces.
    Space(space::SpaceArgs),
    /// Appends an entry to a timeline.
    Post(entry::PostArgs),
    /// Deletes an entry.
    Delete(entry::DeleteArgs),
    /// Sets, changes or clears the expiry of an entry.
    Expire(entry::ExpireArgs),
    /// Makes a reader follow owners.
    #[command(after_help = "Example:\n  fanfold follow 1 2 3    # reader 1 follows owners 2 and 3")]
    Follow(relate::EdgeArgs),
    /// Makes a reader follow owners no more.
    #[command(after_help = "Example:\n  fanfold unfollow 1 2    # reader 1 no longer follows owner 2")]
    Unfollow(relate::EdgeArgs),
    /// Hides others from a user's feeds.
    #[command(after_help = "Example:\n  fanfold mute 1 5    # user 1 mutes user 5")]
    Mute(relate::TargetArgs),
    /// Undoes a mute.
    #[command(after_help = "Example:\n  fanfold unmute 1 5")]
    Unmute(relate::TargetArgs),
    /// Hides a user and others from each other.
    #[command(after_help = "Example:\n  fanfold block 1 5    # user 1 blocks user 5")]
    Block(relate::TargetArgs),
    /// Undoes a block.
    #[command(after_help = "Example:\n  fanfold unblock 1 5")]
    Unblock(relate::TargetArgs),
    /// Shows the timeline of an owner, newest first.
    Timeline(feed::TimelineArgs),
    /// Shows the feed of a reader, newest first, or explains why an entry is or is not in it.
    Feed(feed::FeedArgs),
    /// Imports edges or entries from files; goes on where it was if it was interrupted. The exit code is 3 if lines were rejected.
    Import(import::ImportArgs),
    /// Exports the edges and entries of a data directory on which no node runs, in files that `import` reads.
    Export(export::ExportArgs),
    /// Shows how a node is: partitions, streams between them, memory, log.
    Status(status::StatusArgs),
    /// Founds a cluster, shows how it is, and changes what holds for all of it.
    Cluster(cluster::ClusterArgs),
    /// Lists, shows, drains, removes and replaces nodes.
    Node(node::NodeArgs),
    /// Lists, shows and moves partitions and their leaders.
    Partition(partition::PartitionArgs),
    /// Pauses the fan-out of an owner, or lets it go on.
    FanOut(fan_out::FanOutArgs),
    /// Shows which users and partitions are read, written or delivered most.
    Hot(hot::HotArgs),
    /// Looks into a data directory while no node runs on it.
    Inspect(inspect::InspectArgs),
    /// Reads everything that a node has on disk and checks it, while it runs or while it does not.
    Verify(verify::VerifyArgs),
    /// Makes, lists and restores backups.
    Backup(backup::BackupArgs),
    /// Lists and cancels the checks and backups that nodes do.
    Job(jobs::JobArgs),
    /// What to do about the clock of a node.
    Clock(admin::ClockArgs),
    /// Shows the settings of a node.
    Config(admin::ConfigArgs),
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    crate::unread_page::name_before_the_end();
    // clap itself ends the process with 2 on misuse, and with 0 after help and version.
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            error.tell();
            error.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Start(args) => start::run(&args),
        Command::Demo(args) => crate::demo::run(args).map_err(CliError::Demo),
        Command::Inspect(args) => inspect::run(&args),
        Command::Config(args) => admin::config(&args),
        Command::Export(args) => remote::block_on(export::run(args)),
        Command::Verify(args) if args.is_offline() => verify::offline(&args),
        Command::Backup(args) if args.is_offline() => backup::offline(&args),
        Command::Cluster(args) if args.is_offline() => cluster::offline(&args),
        Command::Partition(args) if args.is_offline() => partition::offline(&args),
        remote => remote::block_on(run_remote(remote)),
    }
}

async fn run_remote(command: Command) -> Result<(), CliError> {
    use relate::Relation;
    match command {
        Command::Space(args) => space::run(args).await,
        Command::Post(args) => entry::post(args).await,
        Command::Delete(args) => entry::delete(args).await,
        Command::Expire(args) => entry::expire(args).await,
        Command::Follow(args) => relate::edges(args, Relation::Follow).await,
        Command::Unfollow(args) => relate::edges(args, Relation::Unfollow).await,
        Command::Mute(args) => relate::targets(args, Relation::Mute).await,
        Command::Unmute(args) => relate::targets(args, Relation::Unmute).await,
        Command::Block(args) => relate::targets(args, Relation::Block).await,
        Command::Unblock(args) => relate::targets(args, Relation::Unblock).await,
        Command::Timeline(args) => feed::timeline(args).await,
        Command::Feed(args) => feed::feed(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Cluster(args) => cluster::run(args).await,
        Command::Node(args) => node::run(args).await,
        Command::Partition(args) => partition::run(args).await,
        Command::Hot(args) => hot::run(args).await,
        Command::FanOut(args) => fan_out::run(args).await,
        Command::Clock(args) => admin::clock(args).await,
        Command::Verify(args) => verify::online(args).await,
        Command::Backup(args) => backup::create(args).await,
        Command::Job(args) => jobs::run(args).await,
        Command::Start(_)
        | Command::Demo(_)
        | Command::Inspect(_)
        | Command::Config(_)
        | Command::Export(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn leaves(command: &clap::Command, out: &mut Vec<clap::Command>) {
        if command.get_subcommands().next().is_none() || command.get_name() == "feed" {
            out.push(command.clone());
        }
        command.get_subcommands().filter(|c| c.get_name() != "help").for_each(|c| leaves(c, out));
    }

    #[test]
    fn help_of_every_command_shows_an_example() {
        let mut commands = Vec::new();
        leaves(&Cli::command(), &mut commands);
        assert!(commands.len() > 20);
        for mut command in commands {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{} has no example:\n{help}", command.get_name());
        }
    }

    #[test]
    fn command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
