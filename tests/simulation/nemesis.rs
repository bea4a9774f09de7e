//! Owns the faults of a run: which comes when follows from the seed.
//!
//! - All of them end when it is time to heal; until then nothing is spared, a majority neither.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use fanfold_storage::fs::{FaultFs, PowerLoss};
use fanfold_storage::ids::PartitionId;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turmoil::Sim;

use crate::plan::{Control, NODES, PARTITIONS, Weather};
use crate::rot;
use crate::wire::name_of;
use crate::world::{BROKEN, Machine, World, lock};

/// What is wrong with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Both,
    There,
    Back,
    Held,
}

/// The faults of a run.
pub struct Nemesis {
    chance: ChaCha8Rng,
    next_ms: u64,
    /// When nodes that are down start again.
    down: BTreeMap<usize, u64>,
    /// Links that are cut, and until when.
    cuts: BTreeMap<(usize, usize), (Cut, u64)>,
    /// When what was done to a node's disk or clock is undone.
    undo: BTreeMap<usize, u64>,
    has_healed: bool,
    has_rotted: bool,
    /// [`BROKEN`]'s disk as it was a little before it rots.
    kept: Option<FaultFs>,
    /// What is left of a scripted sequence, the next step last.
    script: Vec<(u64, Step)>,
    pub crashes: u64,
    pub faults: u64,
}

/// A step of a scripted sequence.
#[derive(Debug, Clone, Copy)]
enum Step {
    Cut(usize, usize, u64),
    LosePower(usize, u64),
    Rot(u64),
}

impl Nemesis {
    /// The faults of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            chance: ChaCha8Rng::seed_from_u64(seed ^ 0xbad),
            next_ms: 2_000,
            down: BTreeMap::new(),
            cuts: BTreeMap::new(),
            undo: BTreeMap::new(),
            has_healed: false,
            has_rotted: false,
            kept: None,
            script: Vec::new(),
            crashes: 0,
            faults: 0,
        }
    }

    /// Does what is due at this moment.
    pub fn step(&mut self, sim: &mut Sim<'_>, world: &World) {
        let now_ms = world.now_ms();
        for node in 0..NODES {
            // A process that ended by itself: what it had written is in the page cache, or the machine had lost its power.
            if !self.down.contains_key(&node) && !sim.is_host_running(name_of(node)) {
                let loses = self.chance.random_bool(0.5);
                self.stop(sim, world, node, loses);
            }
        }
        if now_ms >= world.plan.heal_ms() {
            if !self.has_healed {
                self.heal(sim, world);
            }
        } else if now_ms >= self.next_ms.max(world.plan.first_fault_ms()) {
            self.next_ms = now_ms + self.chance.random_range(200..2_500);
            self.faults += 1;
            self.strike(sim, world);
        }
        let due: Vec<_> =
            self.cuts.iter().filter(|(_, (_, until))| *until <= now_ms).map(|(l, _)| *l).collect();
        due.into_iter().for_each(|link| self.join(sim, world, link));
        while let Some((_, step)) = self.script.pop_if(|(at_ms, _)| *at_ms <= now_ms) {
            match step {
                Step::Cut(a, b, until_ms) => self.cut(sim, world, a, b, Cut::Both, until_ms),
                Step::LosePower(node, until_ms) if !self.down.contains_key(&node) => {
                    self.stop(sim, world, node, true);
                    self.down.insert(node, until_ms);
                }
                Step::LosePower(..) => {}
                Step::Rot(until_ms) => {
                    self.flip_bit(sim, world);
                    self.down.insert(BROKEN, until_ms);
                }
            }
        }
        let due: Vec<_> = self.undo.iter().filter(|(_, until)| **until <= now_ms).map(|(n, _)| *n).collect();
        due.into_iter().for_each(|node| self.undo(world, node));
        let due: Vec<_> = self.down.iter().filter(|(_, until)| **until <= now_ms).map(|(n, _)| *n).collect();
        due.into_iter().for_each(|node| self.start(sim, world, node));
    }

    fn strike(&mut self, sim: &mut Sim<'_>, world: &World) {
        let node = self.chance.random_range(0..NODES);
        let roll = self.chance.random_range(0..100);
        if world.plan.is_whole {
            return match roll {
                0..18 => self.crash(sim, world, node, false),
                18..36 => self.crash(sim, world, node, true),
                36..41 => self.power_cut(sim, world, &[0, 1, 2]),
                41..60 => self.link_fault(sim, world),
                60..72 => self.disk_fault(world, node),
                72..86 => self.clock_fault(world, node),
                _ => self.isolate_leader(sim, world),
            };
        }
        match world.plan.weather {
            Weather::Power if roll < 25 => return self.power_cut(sim, world, &[BROKEN]),
            Weather::Power if roll < 35 => return self.power_cut(sim, world, &[0, 1, 2]),
            Weather::Power if roll < 60 => return self.isolate_leader(sim, world),
            Weather::Elections if roll < 80 => return self.two_leaders(world),
            Weather::Clocks if roll < 50 => return self.clock_fault(world, node),
            Weather::Clocks if roll < 75 => return self.isolate_leader(sim, world),
            Weather::Rot if roll < 60 => return self.rot(world),
            Weather::Streams if roll < 75 => return self.stream_fault(world),
            _ => {}
        }
        match self.chance.random_range(0..100) {
            0..12 => self.crash(sim, world, node, false),
            12..22 => self.crash(sim, world, node, true),
            22..26 => self.power_cut(sim, world, &[0, 1, 2]),
            26..45 => self.link_fault(sim, world),
            45..55 => self.isolate_leader(sim, world),
            55..78 => self.disk_fault(world, node),
            78..90 => self.clock_fault(world, node),
            _ => self.stream_fault(world),
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, world: &World, node: usize, loses_power: bool) {
        if !self.down.contains_key(&node) {
            self.stop(sim, world, node, loses_power);
        }
    }

    fn power_cut(&mut self, sim: &mut Sim<'_>, world: &World, nodes: &[usize]) {
        nodes.iter().for_each(|node| self.crash(sim, world, *node, true));
    }

    /// Ends a node's process, and the machine's power if it loses that.
    fn stop(&mut self, sim: &mut Sim<'_>, world: &World, node: usize, loses_power: bool) {
        world.note(format_args!("nemesis: node {node} stops, power {loses_power}"));
        self.crashes += 1;
        sim.crash(name_of(node));
        world.forget_replicas(node);
        let loss = PowerLoss::Random(self.chance.random());
        let mut disk = lock(&world.machines[node].disk);
        *disk = if loses_power { disk.lose_power(loss) } else { disk.kill() };
        drop(disk);
        // The disk of the next start does what it is told.
        world.machines[node].is_faulty.store(false, Ordering::Relaxed);
        self.undo(world, node);
        self.down.insert(node, world.now_ms() + self.chance.random_range(100..4_000));
    }

    fn start(&mut self, sim: &mut Sim<'_>, world: &World, node: usize) {
        self.down.remove(&node);
        world.note(format_args!("nemesis: node {node} starts"));
        sim.bounce(name_of(node));
    }

    /// Undoes what was done to a disk or clock.
    fn undo(&mut self, world: &World, node: usize) {
        self.undo.remove(&node);
        let machine = &world.machines[node];
        machine.sync_ms.store(1, Ordering::Relaxed);
        machine.offset_ms.store(0, Ordering::Relaxed);
        lock(&machine.disk).set_room_bytes(None);
    }

    fn disk_fault(&mut self, world: &World, node: usize) {
        if self.down.contains_key(&node) {
            return;
        }
        let machine = &world.machines[node];
        let disk = lock(&machine.disk).clone();
        let kind = self.chance.random_range(0..6);
        world.note(format_args!("nemesis: disk fault {kind} on node {node}"));
        let count = self.chance.random_range(0..12);
        let until_ms = world.now_ms() + self.chance.random_range(500..6_000);
        match kind {
            0 | 1 => {
                machine.sync_ms.store(self.chance.random_range(20..3_000), Ordering::Relaxed);
                self.undo.insert(node, until_ms);
            }
            2 => {
                disk.set_room_bytes(Some(0));
                machine.is_faulty.store(true, Ordering::Relaxed);
                self.undo.insert(node, until_ms);
            }
            3 => {
                disk.fail_sync_after(count, PowerLoss::Random(self.chance.random()));
                machine.is_faulty.store(true, Ordering::Relaxed);
            }
            4 => {
                disk.fail_write_after(count, self.chance.random_range(0..5_000));
                machine.is_faulty.store(true, Ordering::Relaxed);
            }
            _ => {
                disk.stop_after(count);
                machine.is_faulty.store(true, Ordering::Relaxed);
            }
        }
    }

    fn clock_fault(&mut self, world: &World, node: usize) {
        // Whole nodes compare their clocks, so that one may also start with a wrong one.
        if self.down.contains_key(&node) && !world.plan.is_whole {
            return;
        }
        let jumps = self.chance.random_bool(0.5);
        let offset_ms = if jumps {
            [-3_600_000, 3_600_000][self.chance.random_range(0..2)]
        } else {
            self.chance.random_range(-400..400)
        };
        // Of three clocks two that are wrong alike are believed, and the third is not: nobody could tell.
        let is_far = |machine: &Machine| machine.offset_ms.load(Ordering::Relaxed).abs() > 1_000;
        let others = world.machines.iter().enumerate().filter(|(other, _)| *other != node);
        if jumps && world.plan.is_whole && others.map(|(_, machine)| machine).any(is_far) {
            return;
        }
        world.note(format_args!("nemesis: the clock of node {node} is off by {offset_ms} ms"));
        world.machines[node].offset_ms.store(offset_ms, Ordering::Relaxed);
        self.undo.insert(node, world.now_ms() + self.chance.random_range(1_000..8_000));
    }

    fn stream_fault(&mut self, world: &World) {
        let partition = self.chance.random_range(0..usize::from(PARTITIONS));
        let delay_ms = if self.chance.random_bool(0.6) { self.chance.random_range(100..1_800) } else { 0 };
        let loss = if self.chance.random_bool(0.5) { 10 } else { 0 };
        world.note(format_args!("nemesis: streams to {partition} take {delay_ms} ms, one in {loss} is lost"));
        world.stream_delay_ms[partition].store(delay_ms, Ordering::Relaxed);
        world.stream_loss.store(loss, Ordering::Relaxed);
    }

    fn link_fault(&mut self, sim: &mut Sim<'_>, world: &World) {
        // The client is one of them.
        let a = self.chance.random_range(0..NODES);
        let b = self.chance.random_range(0..NODES);
        let b = if a == b { NODES } else { b };
        let cut = [Cut::Both, Cut::There, Cut::Back, Cut::Held][self.chance.random_range(0..4)];
        let until_ms = world.now_ms() + self.chance.random_range(300..6_000);
        self.cut(sim, world, a.min(b), a.max(b), cut, until_ms);
    }

    fn cut(&mut self, sim: &mut Sim<'_>, world: &World, a: usize, b: usize, cut: Cut, until_ms: u64) {
        let link = (a.min(b), a.max(b));
        if self.cuts.contains_key(&link) {
            return;
        }
        world.note(format_args!("nemesis: link {link:?} is cut: {cut:?}"));
        let (one, other) = (name_of(link.0), name_of(link.1));
        match cut {
            Cut::Both => sim.partition(one, other),
            Cut::There => sim.partition_oneway(one, other),
            Cut::Back => sim.partition_oneway(other, one),
            Cut::Held => sim.hold(one, other),
        }
        self.cuts.insert(link, (cut, until_ms));
    }

    fn join(&mut self, sim: &mut Sim<'_>, world: &World, link: (usize, usize)) {
        let Some((cut, _)) = self.cuts.remove(&link) else { return };
        world.note(format_args!("nemesis: link {link:?} is joined"));
        let (one, other) = (name_of(link.0), name_of(link.1));
        match cut {
            Cut::Both => sim.repair(one, other),
            Cut::There => sim.repair_oneway(one, other),
            Cut::Back => sim.repair_oneway(other, one),
            Cut::Held => sim.release(one, other),
        }
    }

    /// The node that leads a partition, if one that runs says so.
    fn leader(&mut self, world: &World) -> Option<usize> {
        let partition = PartitionId(self.chance.random_range(0..PARTITIONS));
        (0..NODES).find(|node| world.standing(*node, partition).is_some_and(|standing| standing.leads()))
    }

    fn isolate_leader(&mut self, sim: &mut Sim<'_>, world: &World) {
        let Some(leader) = self.leader(world) else { return };
        let until_ms = world.now_ms() + self.chance.random_range(1_000..6_000);
        for other in (0..NODES).filter(|other| *other != leader) {
            self.cut(sim, world, leader, other, Cut::Both, until_ms);
        }
    }

    /// A leader is cut off until another one is elected with [`BROKEN`]'s vote; then that one is cut off, and [`BROKEN`]
    /// comes back from a loss of power to the first one.
    fn two_leaders(&mut self, world: &World) {
        let Some(leader) = self.leader(world).filter(|leader| *leader != BROKEN && self.script.is_empty())
        else {
            return;
        };
        let other = NODES - leader - BROKEN;
        let now_ms = world.now_ms();
        let elected_ms = now_ms + self.chance.random_range(1_500..3_000);
        let back_ms = elected_ms + 20;
        let end_ms = back_ms + self.chance.random_range(500..3_000);
        self.next_ms = end_ms + 1_000;
        self.script = vec![
            (elected_ms, Step::LosePower(BROKEN, back_ms)),
            (elected_ms, Step::Cut(other, BROKEN, end_ms)),
            (now_ms, Step::Cut(leader, BROKEN, back_ms)),
            (now_ms, Step::Cut(leader, other, end_ms)),
        ];
    }

    /// A bit of [`BROKEN`]'s log flips while it is down. The node that is to be with it then has missed what was written
    /// before, and the leader, which has it, is cut off meanwhile.
    fn rot(&mut self, world: &World) {
        if self.has_rotted || self.down.contains_key(&BROKEN) || world.now_ms() < 8_000 {
            return;
        }
        let Some(leader) = self.leader(world).filter(|leader| *leader != BROKEN && self.script.is_empty())
        else {
            return;
        };
        self.has_rotted = true;
        self.kept = Some(lock(&world.machines[BROKEN].disk).duplicate());
        let other = NODES - leader - BROKEN;
        let now_ms = world.now_ms();
        let rots_ms = now_ms + self.chance.random_range(600..2_500);
        let end_ms = rots_ms + self.chance.random_range(3_000..6_000);
        self.next_ms = end_ms + 1_000;
        self.script = vec![
            (rots_ms, Step::Rot(rots_ms + 50)),
            (rots_ms, Step::Cut(leader, BROKEN, end_ms)),
            (rots_ms, Step::Cut(leader, other, end_ms)),
            (now_ms, Step::Cut(other, BROKEN, rots_ms)),
            (now_ms, Step::Cut(other, leader, rots_ms)),
        ];
    }

    fn flip_bit(&mut self, sim: &mut Sim<'_>, world: &World) {
        let loses = self.chance.random_bool(0.5);
        self.crash(sim, world, BROKEN, loses);
        let machine = &world.machines[BROKEN];
        machine.is_rotten.store(true, Ordering::Relaxed);
        let disk = lock(&machine.disk).clone();
        if world.breaks(Control::TruncateOnDamage)
            && let Some(before) = self.kept.take()
        {
            // What a log leaves that takes damage for its end: all that stood there a little earlier.
            *lock(&machine.disk) = before;
            return world.note(format_args!("nemesis: the log of node {BROKEN} is cut"));
        }
        let found = rot::flip(&disk, &mut self.chance);
        world.note(format_args!("nemesis: a bit is flipped: {found:?}"));
    }

    fn heal(&mut self, sim: &mut Sim<'_>, world: &World) {
        self.has_healed = true;
        self.script.clear();
        world.note(format_args!("nemesis: heals"));
        let links: Vec<_> = self.cuts.keys().copied().collect();
        links.into_iter().for_each(|link| self.join(sim, world, link));
        (0..NODES).for_each(|node| self.undo(world, node));
        for node in 0..NODES {
            // A machine with an armed fault is replaced by itself without.
            if !self.down.contains_key(&node) && world.machines[node].is_faulty.load(Ordering::Relaxed) {
                self.stop(sim, world, node, false);
            }
        }
        self.down.values_mut().for_each(|until| *until = (*until).min(world.now_ms() + 1_000));
        world.stream_delay_ms.iter().for_each(|delay| delay.store(0, Ordering::Relaxed));
        world.stream_loss.store(0, Ordering::Relaxed);
    }
}
