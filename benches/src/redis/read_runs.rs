//! Owns the measurements of a [`RedisTarget`] that read: reads alone, and reads with posts.
//!
//! - Each usual way to read is run; a few pages of each run are compared with what the lists hold, whole feeds with the oracle.

use std::collections::HashMap;
use std::time::Duration;

use super::control::Control;
use super::encode::{Encoder, FanoutWay};
use super::error::RedisError;
use super::filling;
use super::keys::List;
use super::mixed::Mixed;
use super::oracle;
use super::pages::{self, ReadWay};
use super::posting::{OPEN_LOOP_IN_FLIGHT_MAX, Pace, Posting};
use super::pump::{Micros, Pump};
use super::reading::{ReadKind, Reading};
use super::target::{RedisTarget, trial};
use crate::load::target::{Figures, MixedLoad, ReadLoad};

impl RedisTarget {
    fn read_kind(&mut self, way: ReadWay, load: &ReadLoad) -> Result<ReadKind, RedisError> {
        if load.hydrate && !self.has_payloads {
            let payload = vec![b'x'; self.options.payload_bytes as usize];
            filling::store_payloads(&self.addresses, &self.plan, load.limit, &payload)?;
            self.has_payloads = true;
        }
        Ok(ReadKind {
            way,
            celebrities: Some(load.celebrities),
            hydrate: load.hydrate,
            payload_bytes: self.options.payload_bytes,
            limit: load.limit,
            first_read: load.first_read,
            keep: load.sample_readers,
        })
    }

    pub(super) fn reads(&mut self, load: &ReadLoad) -> Result<Vec<Figures>, RedisError> {
        let readers = self.plan.graph().sampled_readers(load.sample_readers);
        let mut all = Vec::new();
        for way in ReadWay::all(load.celebrities, load.hydrate, self.processes.len()) {
            let kind = self.read_kind(*way, load)?;
            let trial = trial(load.duration);
            self.read_once(kind, load, trial)?;
            let mut figures = self.read_once(kind, load, load.duration)?;
            self.compare(&readers, &mut figures)?;
            all.push(figures);
        }
        Ok(all)
    }

    fn read_once(&self, kind: ReadKind, load: &ReadLoad, duration: Duration) -> Result<Figures, RedisError> {
        let lanes = load.connections.max(1) as usize;
        let mut pump = Pump::connect(&self.addresses, lanes)?;
        let lists = self.celebrity_lists(kind.limit)?;
        let meter = self.begin()?;
        let start = pump.now();
        let end = start + duration.as_micros() as Micros;
        let pace = Pace { in_flight: load.depth.max(1), rate: None, end };
        let mut reading = Reading::new(&self.plan, kind, pace, lanes, start).with_cache(lists.clone(), start);
        pump.run(&mut reading, Reading::is_finished)?;
        let reading = reading.into_taken();
        let seconds = (reading.last - start) as f64 / 1e6;
        let mut figures = self.figures(&meter, kind.way.name(kind.hydrate), seconds)?;
        (figures.connections, figures.in_flight) = (load.connections, load.depth);
        figures.reads = reading.reads;
        figures.read_micros = reading.micros;
        self.compare_pages(&kind, &reading.kept, &lists, &mut figures)?;
        figures.mismatched_readers += reading.missing_payloads;
        Ok(figures)
    }

    /// The newest of each celebrity's list.
    fn celebrity_lists(&self, limit: u32) -> Result<HashMap<u32, Vec<u64>>, RedisError> {
        let mut control = Control::connect(self.addresses[0])?;
        let (mut lists, mut out) = (HashMap::new(), Vec::new());
        for celebrity in self.plan.celebrities() {
            out.clear();
            oracle::read_newest(&mut out, List::Celebrity(celebrity), limit);
            control.send(&out)?;
            lists.insert(celebrity, control.reply(oracle::ids)?);
        }
        Ok(lists)
    }

    /// Compares pages read with what the lists hold; the home feeds themselves are compared with the oracle elsewhere.
    fn compare_pages(
        &self,
        kind: &ReadKind,
        kept: &[(u32, Vec<u64>)],
        lists: &HashMap<u32, Vec<u64>>,
        figures: &mut Figures,
    ) -> Result<(), RedisError> {
        let mut controls = Vec::new();
        for address in &self.addresses {
            controls.push(Control::connect(*address)?);
        }
        let limit = kind.limit as usize;
        let mut out = Vec::new();
        for (reader, page) in kept {
            out.clear();
            oracle::read_newest(&mut out, List::Feed(*reader), kind.limit);
            let control = &mut controls[self.plan.instance_of(*reader)];
            control.send(&out)?;
            let mut expected = control.reply(oracle::ids)?;
            if kind.celebrities == Some(true) {
                for celebrity in self.plan.graph().celebrities_of(*reader) {
                    let held = lists.get(&celebrity).cloned().unwrap_or_default();
                    let entries = self.plan.celebrity_entries(celebrity);
                    figures.mismatched_readers += u64::from(!entries.ends_with(&held));
                    expected.extend(held);
                }
            }
            pages::newest(&mut expected, limit);
            figures.sampled_readers += 1;
            figures.mismatched_readers += u64::from(expected != *page);
        }
        Ok(())
    }

    pub(super) fn mixes(&mut self, load: &MixedLoad) -> Result<Vec<Figures>, RedisError> {
        let readers = self.plan.graph().sampled_readers(load.sample_readers);
        let celebrities = self.plan.graph().first_celebrity().is_some();
        let mut all = Vec::new();
        for persistence in self.persistences() {
            self.set_persistence(persistence)?;
            for way in ReadWay::all(celebrities, load.hydrate, self.processes.len()) {
                self.mix(load, *way, celebrities, trial(load.duration))?;
                let mut figures = self.mix(load, *way, celebrities, load.duration)?;
                self.compare(&readers, &mut figures)?;
                all.push(figures);
            }
        }
        Ok(all)
    }

    fn mix(
        &mut self,
        load: &MixedLoad,
        way: ReadWay,
        celebrities: bool,
        duration: Duration,
    ) -> Result<Figures, RedisError> {
        let read_load = ReadLoad {
            celebrities,
            hydrate: load.hydrate,
            limit: load.limit,
            connections: load.connections,
            depth: 1,
            duration,
            first_read: load.first_read,
            sample_readers: 0,
        };
        // Every second reader follows celebrities, as on the other side.
        let kind = ReadKind { celebrities: None, ..self.read_kind(way, &read_load)? };
        let lanes = load.connections.max(2) as usize;
        let posting_lanes = (lanes / 10).max(1);
        let lists = self.celebrity_lists(load.limit)?;
        let mut pump = Pump::connect(&self.addresses, lanes)?;
        let meter = self.begin()?;
        let start = pump.now();
        let end = start + duration.as_micros() as Micros;
        let posts_rate = load.rate / (f64::from(load.reads_per_post) + 1.0);
        let pace = |rate: f64| Pace { in_flight: OPEN_LOOP_IN_FLIGHT_MAX, rate: Some(rate.max(1e-3)), end };
        let payload = vec![b'x'; load.payload_bytes as usize];
        let encoder = Encoder::new(&self.plan, FanoutWay::Rpush, payload, self.script_sha.clone());
        let (first_post, log) = (load.first_post, &mut self.log);
        let mut mixed = Mixed {
            posting: Posting::new(encoder, log, pace(posts_rate), first_post, posting_lanes, start),
            reading: Reading::new(
                &self.plan,
                kind,
                pace(load.rate - posts_rate),
                lanes - posting_lanes,
                start,
            )
            .with_cache(lists, start),
            posting_lanes,
        };
        pump.run(&mut mixed, |mixed, now| mixed.posting.is_finished(now) && mixed.reading.is_finished(now))?;
        let Mixed { posting, reading, .. } = mixed;
        let (counted, reading) = (posting.into_counted(), reading.into_taken());
        let seconds = (counted.last.max(reading.last) - start) as f64 / 1e6;
        let mut figures = self.figures(&meter, way.name(load.hydrate), seconds)?;
        (figures.connections, figures.in_flight) = (lanes as u32, OPEN_LOOP_IN_FLIGHT_MAX);
        (figures.posts, figures.deliveries) = (counted.posts, counted.deliveries);
        figures.post_micros = counted.answer;
        figures.last_delivery_micros = counted.last_delivery;
        figures.post_to_last_micros = counted.whole;
        (figures.reads, figures.read_micros) = (reading.reads, reading.micros);
        figures.mismatched_readers += reading.missing_payloads;
        Ok(figures)
    }
}
