//! Which rules can be called at the same place in the text, and whether any of them calls itself there without end.

use std::rc::Rc;

use super::rules::{Rules, Symbol};
use crate::Error;

/// A call from one rule to another before any character has been read.
struct Call {
    to: u32,
    /// Nothing comes before it in the alternative, so no empty text is read in between.
    first: bool,
    /// Nothing comes after it in the alternative, so no work accumulates with each round.
    last: bool,
}

/// The rank of each rule: higher than the ranks of the rules that it calls before a character is read, or equal if they
/// also call it. Returns an error for left recursion, where a text could be read in infinitely many steps.
///
/// A rule that calls itself last, after parts that may be empty, does not count as left-recursive: the repetitions of
/// `("a"*)*`.
pub(crate) fn ranks(rules: &Rules, names: &[Rc<str>]) -> Result<Vec<u32>, Error> {
    let empty = may_be_empty(rules);
    let calls: Vec<Vec<Call>> = (0..rules.count() as u32).map(|rule| calls(rules, rule, &empty)).collect();
    let ranks = components(calls.len(), |rule, call| calls[rule].get(call).map(|call| call.to as usize));
    let direct: Vec<Vec<u32>> =
        calls.iter().map(|calls| calls.iter().filter(|call| call.first).map(|call| call.to).collect()).collect();
    let direct_ranks = components(direct.len(), |rule, call| direct[rule].get(call).map(|to| *to as usize));
    for (rule, calls) in calls.iter().enumerate() {
        for call in calls {
            let to = call.to as usize;
            let endless =
                !call.last && ranks[rule] == ranks[to] || call.first && direct_ranks[rule] == direct_ranks[to];
            if endless {
                return Err(Error::Grammar(format!(
                    "left recursion: the rule '{name}' begins with itself, directly or by way of other rules; write \
                     what repeats with * or +, such as `{name} ::= item (\",\" item)*`",
                    name = names[rule]
                )));
            }
        }
    }
    Ok(ranks)
}

fn calls(rules: &Rules, rule: u32, empty: &[bool]) -> Vec<Call> {
    let mut calls = Vec::new();
    for start in rules.alternatives(rule) {
        for (position, symbol) in rules.sequence(*start) {
            let Symbol::Rule(to) = symbol else { break };
            let last = rules.symbols[position as usize + 1] == Symbol::End;
            calls.push(Call { to, first: position == *start, last });
            if !empty[to as usize] {
                break;
            }
        }
    }
    calls
}

/// Which rules match the empty text.
fn may_be_empty(rules: &Rules) -> Vec<bool> {
    let mut empty = vec![false; rules.count()];
    // For each alternative made only of rules: the rule that owns it, and how many of its parts are not yet known to be
    // empty.
    let mut waiting: Vec<(u32, usize)> = Vec::new();
    let mut used_in: Vec<Vec<usize>> = vec![Vec::new(); rules.count()];
    let mut found: Vec<u32> = Vec::new();
    for rule in 0..rules.count() as u32 {
        for start in rules.alternatives(rule) {
            if rules.sequence(*start).any(|(_, symbol)| !matches!(symbol, Symbol::Rule(_))) {
                continue;
            }
            let mut count = 0;
            for (_, symbol) in rules.sequence(*start) {
                if let Symbol::Rule(part) = symbol {
                    used_in[part as usize].push(waiting.len());
                    count += 1;
                }
            }
            waiting.push((rule, count));
            if count == 0 {
                found.push(rule);
            }
        }
    }
    while let Some(rule) = found.pop() {
        if std::mem::replace(&mut empty[rule as usize], true) {
            continue;
        }
        for place in &used_in[rule as usize] {
            let (owner, count) = &mut waiting[*place];
            *count -= 1;
            if *count == 0 {
                found.push(*owner);
            }
        }
    }
    empty
}

/// The strongly connected components of a graph of `count` nodes, numbered so that edges lead to equal or lower numbers
/// (Tarjan 1972, without recursion). `edge(node, n)` is the target of edge n of a node.
fn components(count: usize, edge: impl Fn(usize, usize) -> Option<usize>) -> Vec<u32> {
    const NONE: u32 = u32::MAX;
    let mut number = vec![NONE; count];
    let mut lowest = vec![0_u32; count];
    let mut component = vec![NONE; count];
    let mut open: Vec<usize> = Vec::new();
    let mut path: Vec<(usize, usize)> = Vec::new();
    let (mut numbers, mut components) = (0, 0);
    for start in 0..count {
        if number[start] != NONE {
            continue;
        }
        path.push((start, 0));
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            if *next == 0 {
                number[node] = numbers;
                lowest[node] = numbers;
                numbers += 1;
                open.push(node);
            }
            if let Some(to) = edge(node, *next) {
                *next += 1;
                if number[to] == NONE {
                    path.push((to, 0));
                } else if component[to] == NONE {
                    lowest[node] = lowest[node].min(number[to]);
                }
                continue;
            }
            if lowest[node] == number[node] {
                while let Some(member) = open.pop() {
                    component[member] = components;
                    if member == node {
                        break;
                    }
                }
                components += 1;
            }
            path.pop();
            if let Some((above, _)) = path.last() {
                lowest[*above] = lowest[*above].min(lowest[node]);
            }
        }
    }
    component
}

#[cfg(test)]
mod tests {
    use super::super::Rules;

    fn refused(grammar: &str) -> bool {
        match Rules::parse(grammar, "root") {
            Ok(_) => false,
            Err(error) => {
                assert!(error.to_string().contains("left recursion"), "{error}");
                true
            }
        }
    }

    #[test]
    fn left_recursion_is_refused() {
        for grammar in [
            "root ::= root",
            "root ::= \"a\" | root \"a\"",
            "root ::= x\nx ::= \"a\" | y \"b\"\ny ::= \"c\" | x \"d\"",
            "root ::= x\nx ::= \"a\" | y \"b\"\ny ::= \"c\" | e x \"d\"\ne ::= \"z\" | ",
            "root ::= \"a\"* root \"b\" | \"c\"",
            "root ::= \"\" root | \"c\"",
            "root ::= \"b\"\nx ::= x",
            "root ::= (root \"a\")* \"b\"",
            "root ::= (\"a\"? root)? root",
        ] {
            assert!(refused(grammar), "{grammar}");
        }
    }

    #[test]
    fn repetitions_of_what_may_be_empty_are_none() {
        for grammar in [
            "root ::= (\"a\"*)*",
            "root ::= ((\"a\"*)* \"b\"?)* | ([x]*)+",
            "root ::= \"a\" root | ",
            "root ::= (\"(\" root \")\")*",
            "root ::= (\"a\"?){0,5} (\"a\"*){2,}",
            "root ::= ()* | (()?)*",
        ] {
            assert!(!refused(grammar), "{grammar}");
        }
    }
}
