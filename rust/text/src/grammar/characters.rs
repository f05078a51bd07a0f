//! Sets of characters, and the classes into which the sets of a grammar partition the characters.

use hashbrown::HashMap;

/// The highest code point.
pub(crate) const LAST: u32 = 0x0010_FFFF;
/// The UTF-16 surrogates, which are not characters.
pub(crate) const SURROGATES: (u32, u32) = (0xD800, 0xDFFF);

/// A set of code points: ascending, inclusive ranges with gaps between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Characters {
    ranges: Vec<(u32, u32)>,
}

impl Characters {
    /// The union of the ranges; a range that runs backwards is empty.
    pub(crate) fn of(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.retain(|(first, last)| first <= last && *first <= LAST);
        ranges.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            let last = last.min(LAST);
            match joined.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        joined.shrink_to_fit();
        Self { ranges: joined }
    }

    /// All characters outside this set.
    pub(crate) fn inverted(&self) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len() + 1);
        let mut next = 0;
        for (first, last) in &self.ranges {
            if next < *first {
                ranges.push((next, first - 1));
            }
            next = last + 1;
        }
        if next <= LAST {
            ranges.push((next, LAST));
        }
        Self { ranges }
    }

    /// Number of ranges.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Every character, line breaks included.
    pub(crate) fn any() -> Self {
        Self { ranges: vec![(0, LAST)] }
    }

    pub(crate) fn contains(&self, character: u32) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= character);
        after > 0 && character <= self.ranges[after - 1].1
    }
}

/// Classes of characters that no set of the grammar distinguishes.
pub(crate) struct Classes {
    /// The first code point of every stretch of a single class, ascending from 0, and its class.
    stretches: Vec<(u32, u32)>,
    /// An example code point for each class.
    examples: Vec<u32>,
}

/// The class of characters that are in no set and of code points that are not characters.
pub(crate) const NO_CLASS: u32 = u32::MAX;

impl Classes {
    pub(crate) fn of(sets: &[Characters]) -> Self {
        let mut borders = vec![0, SURROGATES.0, SURROGATES.1 + 1];
        for set in sets {
            borders.extend(set.ranges.iter().flat_map(|(first, last)| [*first, last + 1]));
        }
        borders.sort_unstable();
        borders.dedup();
        borders.retain(|border| *border <= LAST);
        // Each set splits the groups of stretches that it intersects into those inside and those outside.
        let mut group = vec![0_u32; borders.len()];
        let mut groups = 1_u32;
        let mut inside: HashMap<u32, u32> = HashMap::new();
        for set in sets {
            inside.clear();
            for (first, last) in &set.ranges {
                let start = borders.partition_point(|border| border < first);
                for stretch in start..borders.len() {
                    if borders[stretch] > *last {
                        break;
                    }
                    group[stretch] = *inside.entry(group[stretch]).or_insert_with(|| {
                        groups += 1;
                        groups - 1
                    });
                }
            }
        }
        let mut examples = Vec::new();
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        let mut stretches: Vec<(u32, u32)> = Vec::new();
        for (border, group) in borders.into_iter().zip(group) {
            // Group 0 holds the stretches that were in no set.
            let class = if group == 0 || (SURROGATES.0..=SURROGATES.1).contains(&border) {
                NO_CLASS
            } else {
                *numbers.entry(group).or_insert_with(|| {
                    examples.push(border);
                    examples.len() as u32 - 1
                })
            };
            if stretches.last().is_none_or(|last| last.1 != class) {
                stretches.push((border, class));
            }
        }
        Self { stretches, examples }
    }

    /// An example character of the class.
    pub(crate) fn example(&self, class: u32) -> u32 {
        self.examples[class as usize]
    }

    /// The classes of the code points from `first` to `last`, stretch by stretch; yields at least one.
    pub(crate) fn between(&self, first: u32, last: u32) -> impl Iterator<Item = u32> {
        let start = self.stretches.partition_point(|(border, _)| *border <= first).saturating_sub(1);
        self.stretches[start..].iter().take_while(move |(border, _)| *border <= last).map(|(_, class)| *class)
    }

    /// The class of all code points from `first` to `last`, if they share one.
    pub(crate) fn single(&self, first: u32, last: u32) -> Option<u32> {
        let mut classes = self.between(first, last);
        let class = classes.next()?;
        classes.next().is_none().then_some(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_joined_and_inverted() {
        let set = Characters::of(vec![(98, 100), (97, 97), (101, 90), (200, u32::MAX), (300, 400)]);
        assert_eq!(set.ranges, [(97, 100), (200, LAST)]);
        assert_eq!(set.inverted().ranges, [(0, 96), (101, 199)]);
        assert_eq!(Characters::any().inverted().ranges, []);
        assert_eq!(Characters::of(vec![]).inverted(), Characters::any());
        assert!([97, 100, 200, LAST].iter().all(|character| set.contains(*character)));
        assert!(![0, 96, 101, 199].iter().any(|character| set.contains(*character)));
    }

    #[test]
    fn classes_tell_apart_what_sets_do() {
        let sets = [Characters::of(vec![(97, 122)]), Characters::of(vec![(101, 101)]), Characters::of(vec![(48, 57)])];
        let classes = Classes::of(&sets);
        let class = |character| classes.single(character, character).unwrap();
        assert_eq!(class(97), class(122));
        assert_eq!(class(46), NO_CLASS);
        assert_eq!([class(97), class(101), class(48)].iter().collect::<std::collections::HashSet<_>>().len(), 3);
        assert_eq!(classes.single(97, 102), None);
        assert_eq!(classes.between(97, 102).count(), 3);
        assert_eq!(classes.single(0xD800, 0xDFFF), Some(NO_CLASS));
    }
}
