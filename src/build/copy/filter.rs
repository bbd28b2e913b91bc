//! [`Filter`]: which entries of a source directory are copied.

use super::sources::not_found;
use super::{CopyError, Origin};
use crate::context::{Inherited, PatternList};
use crate::tree::ImagePath;

/// The three lists that an entry must pass: `.dockerignore` counts from the context, `--exclude` and the pattern of
/// `--parents` from the source.
#[derive(Debug, Default)]
pub(super) struct Filter<'a> {
    ignore: Option<&'a PatternList>,
    exclude: Option<&'a PatternList>,
    include: Option<PatternList>,
}

/// What a directory hands down to its entries, list by list.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    ignore: Inherited,
    exclude: Inherited,
    include: Inherited,
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is copied.
    Copied,
    /// It is not, nor is anything below it.
    Dropped,
    /// It is not for its own sake, but something below it may be, and then it is made on the way: as
    /// `.dockerignore` never hid it (`false`), or with `--parents` and `--exclude` as a mere parent (`true`).
    Entered { as_parent: bool },
}

impl<'a> Filter<'a> {
    pub(super) fn new(origin: &Origin<'a>, exclude: &'a PatternList) -> Filter<'a> {
        let ignore = match origin {
            Origin::Context { ignore, .. } => ignore.map(|file| file.patterns()),
            Origin::Tree { .. } | Origin::None => None,
        };
        Filter {
            ignore: ignore.filter(|list| !list.is_empty()),
            exclude: (!exclude.is_empty()).then_some(exclude),
            include: None,
        }
    }

    /// The same filter for a source of `--parents`: only what `pattern` matches.
    pub(super) fn including(&self, pattern: &[u8]) -> Result<Filter<'a>, CopyError> {
        let include = if pattern.is_empty() {
            None
        } else {
            Some(PatternList::new([pattern]).map_err(|source| CopyError::Pattern { source })?)
        };
        if include.as_ref().is_some_and(PatternList::is_empty) {
            return Err(not_found(pattern));
        }
        Ok(Filter { ignore: self.ignore, exclude: self.exclude, include })
    }

    /// What the source directory `top` itself hands down.
    pub(super) fn at(&self, top: &ImagePath) -> State {
        let ignore = self.ignore.map(|list| list.descend(top.relative()).inherited).unwrap_or_default();
        State { ignore, ..State::default() }
    }

    /// Judges the entry at `path` in the origin, `relative` to the source.
    pub(super) fn judge(&self, path: &ImagePath, relative: &[u8], parent: &State) -> (Fate, State) {
        let mut state = State::default();
        let mut is_ignored = false;
        if let Some(list) = self.ignore {
            let verdict = list.verdict(path.relative(), &parent.ignore);
            if verdict.matched && !list.can_except_below(path.relative(), &verdict.inherited) {
                return (Fate::Dropped, state);
            }
            (is_ignored, state.ignore) = (verdict.matched, verdict.inherited);
        }
        let mut is_unwanted = false;
        if let Some(list) = self.exclude {
            let verdict = list.verdict(relative, &parent.exclude);
            if verdict.matched && !list.can_except_below(relative, &verdict.inherited) {
                return (Fate::Dropped, state);
            }
            (is_unwanted, state.exclude) = (verdict.matched, verdict.inherited);
        }
        if let Some(list) = &self.include {
            let verdict = list.verdict(relative, &parent.include);
            if !verdict.matched && !list.can_match_below(relative, &verdict.inherited) {
                return (Fate::Dropped, state);
            }
            is_unwanted |= !verdict.matched;
            state.include = verdict.inherited;
        }
        let fate = if is_ignored || is_unwanted { Fate::Entered { as_parent: is_unwanted } } else { Fate::Copied };
        (fate, state)
    }
}
