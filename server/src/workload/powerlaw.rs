//! Owns drawing ranks by a power law.

use rand::Rng;

/// Draws ranks from 0, the rank `r` with a weight of `(r + 1)^-exponent` (Zipf's law).
#[derive(Debug, Clone)]
pub struct PowerLaw {
    cumulated: Vec<f64>,
}

impl PowerLaw {
    /// Over `ranks` ranks, at least one.
    pub fn new(ranks: usize, exponent: f64) -> Self {
        assert!(ranks > 0, "there must be something to draw");
        let mut sum = 0.0;
        let cumulated = (1..=ranks)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        Self { cumulated }
    }

    /// Draws a rank.
    pub fn draw(&self, rng: &mut impl Rng) -> usize {
        let last = self.cumulated.len() - 1;
        let point = rng.random::<f64>() * self.cumulated[last];
        self.cumulated.partition_point(|sum| *sum <= point).min(last)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn lower_ranks_come_more_often() {
        let law = PowerLaw::new(100, 1.0);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut counts = [0u32; 100];
        for _ in 0..50_000 {
            counts[law.draw(&mut rng)] += 1;
        }
        assert!(counts[0] > 3 * counts[5] && counts[5] > 3 * counts[50], "{counts:?}");
        assert!(counts.iter().all(|count| *count > 0));
    }
}
