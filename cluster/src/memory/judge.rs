//! Owns the verdict about a node's memory: whether it is over its budget, and whether it refuses writes that need more.
//!
//! - Both begin only when a line was passed for some looks in a row, and end a little below it, so that neither comes and goes with
//!   every page.
//! - Who refuses is over its budget.

/// Writes are refused from this part of the budget above it.
const LIMIT_PART: u64 = 10;

/// What began ends so far below its line, as a part of the budget.
const SLACK_PART: u64 = 32;

/// Looks in a row that make sure.
const SURE_LOOKS: u32 = 5;

/// So many looks in a row above the limit are enough, whatever might give way yet: it does not do so fast enough.
const LATE_LOOKS: u32 = 50;

/// For so many looks what is giving way through the log may bring the size below the budget.
const GIVING_WAY_LOOKS: u32 = 500;

/// What is known of a node's memory at one look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// The resident size.
    pub resident_bytes: u64,
    /// What is left of it if all is shed that can be at once.
    pub stays_bytes: u64,
    /// Whether feeds are being freed, or rows are leaving.
    pub gives_way: bool,
}

/// How a node stands to its budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What cannot give way is above the budget.
    pub is_over: bool,
    /// It is so far above that what needs more memory is refused.
    pub refuses: bool,
}

/// Judges look by look.
#[derive(Debug)]
pub(super) struct Judge {
    budget_bytes: u64,
    verdict: Verdict,
    /// Looks in a row at which what stays was above the budget.
    over_looks: u32,
    /// Looks in a row at which the size was above the limit.
    above_looks: u32,
}

impl Judge {
    /// Of a budget.
    pub fn new(budget_bytes: u64) -> Self {
        Self { budget_bytes, verdict: Verdict::default(), over_looks: 0, above_looks: 0 }
    }

    /// The last verdict.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The verdict after another look.
    pub fn look(&mut self, look: Look) -> Verdict {
        let (budget, slack) = (self.budget_bytes, self.budget_bytes / SLACK_PART);
        let limit = budget + budget / LIMIT_PART;
        let count = |looks: u32, passed: bool| if passed { looks.saturating_add(1) } else { 0 };
        self.over_looks = count(self.over_looks, look.stays_bytes > budget);
        self.above_looks = count(self.above_looks, look.resident_bytes > limit);
        let sure = if look.gives_way { GIVING_WAY_LOOKS } else { SURE_LOOKS };
        let is_over =
            if self.verdict.is_over { look.stays_bytes > budget - slack } else { self.over_looks >= sure };
        let late = if is_over { SURE_LOOKS } else { LATE_LOOKS };
        let refuses =
            if self.verdict.refuses { look.resident_bytes > limit - slack } else { self.above_looks >= late };
        self.verdict = Verdict { is_over: is_over || refuses, refuses };
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: u64 = 3_200;

    /// The verdict after so many looks at the same.
    fn after(judge: &mut Judge, looks: u32, resident_bytes: u64, stays_bytes: u64) -> (bool, bool) {
        giving_way(judge, looks, resident_bytes, stays_bytes, false)
    }

    fn giving_way(
        judge: &mut Judge,
        looks: u32,
        resident_bytes: u64,
        stays_bytes: u64,
        gives_way: bool,
    ) -> (bool, bool) {
        let look = Look { resident_bytes, stays_bytes, gives_way };
        (0..looks).for_each(|_| _ = judge.look(look));
        let Verdict { is_over, refuses } = judge.verdict();
        (is_over, refuses)
    }

    #[test]
    fn over_the_budget_is_what_cannot_give_way() {
        let judge = &mut Judge::new(BUDGET);
        assert_eq!(after(judge, 1_000, BUDGET + 300, BUDGET), (false, false));
        assert_eq!(after(judge, SURE_LOOKS - 1, BUDGET + 300, BUDGET + 1), (false, false));
        assert_eq!(after(judge, 1, BUDGET, BUDGET), (false, false), "not in a row");
        assert_eq!(after(judge, SURE_LOOKS, BUDGET + 300, BUDGET + 1), (true, false));
        assert_eq!(after(judge, 1_000, BUDGET, BUDGET - 99), (true, false), "it comes and goes with nothing");
        assert_eq!(after(judge, 1, BUDGET, BUDGET - 100), (false, false));
    }

    #[test]
    fn a_tenth_above_the_budget_writes_are_refused_until_it_is_below_again() {
        let (judge, limit) = (&mut Judge::new(BUDGET), BUDGET + BUDGET / 10);
        assert_eq!(after(judge, 1_000, limit, limit), (true, false));
        assert_eq!(after(judge, SURE_LOOKS - 1, limit + 1, limit), (true, false));
        assert_eq!(after(judge, 1, limit + 1, limit), (true, true));
        assert_eq!(after(judge, 1_000, limit - 99, limit - 99), (true, true));
        assert_eq!(after(judge, 1, limit - 100, limit - 100), (true, false));
        assert_eq!(after(judge, 1, BUDGET / 2, BUDGET / 2), (false, false));
    }

    #[test]
    fn what_gives_way_too_slowly_counts_as_nothing() {
        let (judge, limit) = (&mut Judge::new(BUDGET), BUDGET + BUDGET / 10);
        assert_eq!(after(judge, LATE_LOOKS - 1, limit + 1, 0), (false, false));
        assert_eq!(after(judge, 1, limit + 1, 0), (true, true));
        assert_eq!(after(judge, 1, limit - 100, 0), (false, false));
    }

    #[test]
    fn feeds_that_are_being_freed_are_waited_for_but_not_for_ever() {
        let judge = &mut Judge::new(BUDGET);
        assert_eq!(giving_way(judge, GIVING_WAY_LOOKS - 1, BUDGET + 1, BUDGET + 1, true), (false, false));
        assert_eq!(giving_way(judge, 1, BUDGET + 1, BUDGET + 1, true), (true, false));
        let judge = &mut Judge::new(BUDGET);
        giving_way(judge, SURE_LOOKS, BUDGET + 1, BUDGET + 1, true);
        assert_eq!(giving_way(judge, 1, BUDGET + 1, BUDGET + 1, false), (true, false), "they were freed");
    }
}
