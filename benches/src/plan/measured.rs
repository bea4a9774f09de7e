//! Owns what was measured, so that a plan can be made without a measurement of one's own.
//!
//! - The figures are those of the tables in `README.md`, as [`Costs::of_files`] reads them; the commit is theirs.

use super::costs::Costs;
use super::fit::Line;

/// What things cost with so many replicas, if it was measured.
pub fn costs(replicas: u32) -> Option<Costs> {
    MEASURED.into_iter().find(|measured| measured.replicas == replicas).map(Measured::costs)
}

/// One set of figures.
struct Measured {
    commit: &'static str,
    replicas: u32,
    post_micros: Line,
    deliveries_per_post: f64,
    plain_read_micros: Line,
    hydrated_read_micros: Line,
    entry_bytes: Line,
    edge_bytes: Line,
    log_bytes: Line,
}

const MEASURED: [Measured; 2] = [
    Measured {
        commit: "518c018",
        replicas: 1,
        post_micros: Line { base: 19.7, slope: 2.35 },
        deliveries_per_post: 200.0,
        plain_read_micros: Line { base: 4.93, slope: 0.158 },
        hydrated_read_micros: Line { base: 19.6, slope: 0.0 },
        entry_bytes: Line { base: 2.77, slope: 64.2 },
        edge_bytes: Line { base: 4.42, slope: 175.0 },
        log_bytes: Line { base: 10.0, slope: 19.5 },
    },
    Measured {
        commit: "518c018",
        replicas: 3,
        post_micros: Line { base: 47.5, slope: 5.42 },
        deliveries_per_post: 200.0,
        plain_read_micros: Line { base: 21.2, slope: 0.941 },
        hydrated_read_micros: Line { base: 46.6, slope: 19.5 },
        entry_bytes: Line { base: 2.80, slope: 64.4 },
        edge_bytes: Line { base: 4.41, slope: 176.0 },
        log_bytes: Line { base: 10.4, slope: 19.8 },
    },
];

impl Measured {
    fn costs(self) -> Costs {
        Costs {
            commit: self.commit.to_owned(),
            replicas: self.replicas,
            post_micros: self.post_micros,
            deliveries_per_post: self.deliveries_per_post,
            plain_read_micros: self.plain_read_micros,
            hydrated_read_micros: self.hydrated_read_micros,
            entry_bytes: self.entry_bytes,
            edge_bytes: self.edge_bytes,
            log_bytes: self.log_bytes,
        }
    }
}
