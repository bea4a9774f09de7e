//! Owns the straight lines through measured points that the plan is reckoned with.

use serde::{Deserialize, Serialize};

/// What is there anyway, and what comes with each unit on top.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// At 0.
    pub base: f64,
    /// For each unit.
    pub slope: f64,
}

impl Line {
    /// The line with the least squares of relative errors through points of a unit and a positive figure, neither part below
    /// 0; none without points.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        if points.is_empty() {
            return None;
        }
        let sum = |term: fn(f64, f64) -> f64| -> f64 {
            points.iter().map(|(x, y)| term(*x, *y) / (y * y).max(f64::MIN_POSITIVE)).sum()
        };
        let (one, x, y) = (sum(|_, _| 1.0), sum(|x, _| x), sum(|_, y| y));
        let (xx, xy) = (sum(|x, _| x * x), sum(|x, y| x * y));
        let determinant = one * xx - x * x;
        let level = Self { base: y / one, slope: 0.0 };
        // All at one unit: nothing tells the two parts apart.
        if determinant <= 1e-9 * one * xx {
            return Some(level);
        }
        let line = Self { base: (y * xx - x * xy) / determinant, slope: (one * xy - x * y) / determinant };
        Some(match line {
            Self { slope, .. } if slope < 0.0 => level,
            Self { base, .. } if base < 0.0 => Self { base: 0.0, slope: xy / xx },
            line => line,
        })
    }

    /// The figure at so many units.
    pub fn at(self, units: f64) -> f64 {
        self.base + self.slope * units
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_a_line_give_it_back() {
        let line = Line::through(&[(1.0, 17.0), (4.0, 23.0), (60.0, 135.0)]).unwrap();
        assert!((line.base - 15.0).abs() < 1e-9 && (line.slope - 2.0).abs() < 1e-9, "{line:?}");
        assert!((line.at(10.0) - 35.0).abs() < 1e-9);
    }

    #[test]
    fn errors_count_by_their_share() {
        // Three times too much at the large end moves the small end little.
        let line = Line::through(&[(1.0, 10.0), (2.0, 10.0), (100.0, 30.0)]).unwrap();
        assert!((9.0..10.5).contains(&line.at(1.0)), "{line:?}");
    }

    #[test]
    fn no_part_is_negative() {
        assert!(Line::through(&[(1.0, 20.0), (2.0, 10.0)]).unwrap().slope.abs() < f64::EPSILON);
        let steep = Line::through(&[(1.0, 1.0), (2.0, 10.0)]).unwrap();
        assert!(steep.base.abs() < 1e-9 && steep.slope > 1.0, "{steep:?}");
        assert_eq!(Line::through(&[(3.0, 5.0)]), Some(Line { base: 5.0, slope: 0.0 }));
        assert_eq!(Line::through(&[]), None);
    }
}
