//! [`Schedule`]: which stages can be built now? Pure: numbers in, numbers out.

use std::collections::{BTreeMap, BTreeSet};

/// What each stage must wait for.
pub(super) type Needs = BTreeMap<usize, BTreeSet<usize>>;

/// The order in which stages begin: those that wait for nothing, in the order of the file, as many at a time as may be.
#[derive(Debug)]
pub(super) struct Schedule {
    /// How many may be at work.
    most: usize,
    at_work: usize,
    ready: BTreeSet<usize>,
    /// How many stages a stage still waits for.
    missing: BTreeMap<usize, usize>,
    /// Who waits for a stage.
    waiting: BTreeMap<usize, Vec<usize>>,
}

impl Schedule {
    /// Nothing has begun.
    pub(super) fn new(needs: &Needs, most: usize) -> Schedule {
        let mut waiting: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (stage, needed) in needs {
            for before in needed {
                waiting.entry(*before).or_default().push(*stage);
            }
        }
        let missing: BTreeMap<usize, usize> = needs
            .iter()
            .filter(|(_, needed)| !needed.is_empty())
            .map(|(stage, needed)| (*stage, needed.len()))
            .collect();
        let ready = needs.keys().copied().filter(|stage| !missing.contains_key(stage)).collect();
        Schedule { most, at_work: 0, ready, missing, waiting }
    }

    /// The next stage to begin, if any can.
    pub(super) fn begin(&mut self) -> Option<usize> {
        if self.at_work == self.most {
            return None;
        }
        let stage = self.ready.pop_first()?;
        self.at_work += 1;
        Some(stage)
    }

    /// A stage is built.
    pub(super) fn done(&mut self, stage: usize) {
        self.at_work -= 1;
        for waiting in self.waiting.remove(&stage).unwrap_or_default() {
            if let Some(missing) = self.missing.get_mut(&waiting) {
                *missing -= 1;
                if *missing == 0 {
                    self.missing.remove(&waiting);
                    self.ready.insert(waiting);
                }
            }
        }
    }

    /// A stage could not be built: no other begins.
    pub(super) fn failed(&mut self) {
        self.at_work -= 1;
        self.ready.clear();
        self.missing.clear();
    }
}

/// Are there two stages of which neither waits for the other, not even by way of others?
pub(super) fn may_overlap(needs: &Needs) -> bool {
    let mut schedule = Schedule::new(needs, usize::MAX);
    while let Some(stage) = schedule.begin() {
        if schedule.begin().is_some() {
            return true;
        }
        schedule.done(stage);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(of: &[(usize, &[usize])]) -> Needs {
        of.iter().map(|(stage, needed)| (*stage, needed.iter().copied().collect())).collect()
    }

    /// Two stages on one base, and one that copies from both; stage 3 is not needed.
    fn diamond() -> Needs {
        needs(&[(0, &[]), (1, &[0]), (2, &[0]), (4, &[1, 2])])
    }

    fn begin_all(schedule: &mut Schedule) -> Vec<usize> {
        std::iter::from_fn(|| schedule.begin()).collect()
    }

    #[test]
    fn stages_begin_when_what_they_need_is_done() {
        let mut schedule = Schedule::new(&diamond(), 8);
        assert_eq!(begin_all(&mut schedule), [0]);
        schedule.done(0);
        assert_eq!(begin_all(&mut schedule), [1, 2]);
        schedule.done(2);
        assert!(begin_all(&mut schedule).is_empty());
        schedule.done(1);
        assert_eq!(begin_all(&mut schedule), [4]);
        schedule.done(4);
        assert!(begin_all(&mut schedule).is_empty());
    }

    #[test]
    fn one_at_a_time_is_the_order_of_the_file() {
        for needs in [diamond(), needs(&[(0, &[]), (1, &[]), (2, &[0]), (3, &[]), (4, &[1, 3])])] {
            let mut schedule = Schedule::new(&needs, 1);
            for stage in needs.keys() {
                assert_eq!(begin_all(&mut schedule), [*stage]);
                schedule.done(*stage);
            }
            assert_eq!(schedule.begin(), None);
        }
    }

    #[test]
    fn no_more_than_may_be_are_at_work() {
        let six = (0..6).map(|stage| (stage, BTreeSet::new())).chain([(6, (0..6).collect())]).collect();
        let mut schedule = Schedule::new(&six, 2);
        assert_eq!(begin_all(&mut schedule), [0, 1]);
        schedule.done(1);
        assert_eq!(begin_all(&mut schedule), [2]);
        for (done, begun) in [(2, vec![3]), (3, vec![4]), (4, vec![5]), (0, vec![]), (5, vec![6])] {
            schedule.done(done);
            assert_eq!(begin_all(&mut schedule), begun, "{done}");
        }
    }

    #[test]
    fn after_a_failure_none_begins() {
        let mut schedule = Schedule::new(&needs(&[(0, &[]), (1, &[]), (2, &[]), (3, &[1]), (4, &[])]), 3);
        assert_eq!(begin_all(&mut schedule), [0, 1, 2]);
        schedule.failed();
        assert!(begin_all(&mut schedule).is_empty());
        schedule.done(1);
        schedule.failed();
        assert!(begin_all(&mut schedule).is_empty());
    }

    #[test]
    fn which_stages_may_overlap() {
        for (of, overlap) in [
            (&[][..], false),
            (&[(0, &[][..])], false),
            (&[(0, &[]), (1, &[0]), (2, &[0, 1])], false),
            (&[(0, &[]), (1, &[]), (2, &[0, 1])], true),
            (&[(0, &[]), (1, &[0]), (2, &[0]), (4, &[1, 2])], true),
            (&[(0, &[]), (1, &[0]), (3, &[1]), (5, &[])], true),
        ] {
            assert_eq!(may_overlap(&needs(of)), overlap, "{of:?}");
        }
    }
}
