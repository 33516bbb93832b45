//! Who is in the meta group, decided from what members say: who forms it, who joins it, who becomes a voter. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, MetaId};

/// A member as the Raft membership records it. The directory is part of it, so that a wiped member is somebody
/// else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaNode {
    pub name: String,
    /// `host:port` of its node RPC.
    pub address: String,
    pub incarnation: Incarnation,
}

/// A member of the configured list, which forms the group at the first start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Founder {
    pub name: String,
    pub address: String,
}

/// What a founder answered about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub incarnation: Incarnation,
    /// The membership that it knows; empty while it is not initialised, and while it starts.
    pub members: BTreeMap<MetaId, MetaNode>,
    /// It was given an id, or its log was used: a group was formed, even where `members` does not show it.
    pub used: bool,
}

/// What a member without an id does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask again later, for this reason.
    Wait(String),
    /// Initialise the group with exactly these members.
    Form(BTreeMap<MetaId, MetaNode>),
    /// The group knows this directory under this id.
    Start(MetaId),
    /// The group exists without this directory: ask it for an id.
    Join,
}

/// Decides the next step of a member whose directory has no id. `founders` is the same list on every member;
/// `probes` are the answers by name, the own one included.
///
/// The group is formed once: only by the first founder by name, only while every founder answers and none was
/// ever in a group, and with the directories that answered. A founder whose disk is lost finds the group formed
/// without its new directory, and joins under a new id; were all founders' disks lost, it is another cluster.
pub fn first_step(
    name: &str,
    incarnation: Incarnation,
    founders: &[Founder],
    probes: &BTreeMap<String, Probe>,
) -> Step {
    let mut formed = probes.values().filter(|probe| !probe.members.is_empty()).peekable();
    if formed.peek().is_some() {
        let mut known = formed.flat_map(|probe| &probe.members);
        let me = known.find(|(_, node)| node.incarnation == incarnation);
        return me.map_or(Step::Join, |(id, _)| Step::Start(*id));
    }
    if let Some((used, _)) = probes.iter().find(|(_, probe)| probe.used) {
        return Step::Wait(format!("{used} is of a group and does not run in it yet"));
    }
    let founders: BTreeSet<&Founder> = founders.iter().collect();
    let Some(first) = founders.first() else {
        return Step::Wait("no members are configured".to_owned());
    };
    if first.name != name {
        return Step::Wait(format!("{} has not formed the group yet", first.name));
    }
    let mut members = BTreeMap::new();
    for (id, founder) in (1..).map(MetaId).zip(founders) {
        let Some(probe) = probes.get(&founder.name) else {
            return Step::Wait(format!("{} does not answer at {}", founder.name, founder.address));
        };
        let (name, address) = (founder.name.clone(), founder.address.clone());
        members.insert(id, MetaNode { name, address, incarnation: probe.incarnation });
    }
    Step::Form(members)
}

/// The members that must go: directories that a newer one of the same name replaces once it votes, and those of
/// nodes that were removed from the cluster.
pub fn leaving(
    voters: &BTreeSet<MetaId>,
    nodes: &BTreeMap<MetaId, MetaNode>,
    removed_names: &BTreeSet<&str>,
) -> BTreeSet<MetaId> {
    let replaced = |(id, node): &(&MetaId, &MetaNode)| {
        removed_names.contains(node.name.as_str())
            || nodes.iter().any(|(other, known)| {
                let replaces = voters.contains(other) || !voters.contains(*id);
                other > *id && known.name == node.name && replaces
            })
    };
    nodes.iter().filter(replaced).map(|(id, _)| *id).collect()
}

/// The voters that there should be: those that are, with every learner that has caught up, without those that
/// must go. `None` where nothing is to change, or where nobody would be left.
pub fn next_voters(
    voters: &BTreeSet<MetaId>,
    nodes: &BTreeMap<MetaId, MetaNode>,
    caught_up: &BTreeSet<MetaId>,
    removed_names: &BTreeSet<&str>,
) -> Option<BTreeSet<MetaId>> {
    let mut next: BTreeSet<MetaId> = voters.clone();
    next.extend(nodes.keys().filter(|id| caught_up.contains(id)));
    let leaving = leaving(&next, nodes, removed_names);
    next.retain(|id| !leaving.contains(id));
    (next != *voters && !next.is_empty()).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founders() -> Vec<Founder> {
        let founder = |name: &str| Founder { name: name.to_owned(), address: format!("{name}:7070") };
        vec![founder("b"), founder("a"), founder("c")]
    }

    fn probe(incarnation: u128) -> Probe {
        Probe { incarnation: Incarnation(incarnation), members: BTreeMap::new(), used: false }
    }

    fn node(name: &str, incarnation: u128) -> MetaNode {
        let address = format!("{name}:7070");
        MetaNode { name: name.to_owned(), address, incarnation: Incarnation(incarnation) }
    }

    fn probes(list: Vec<(&str, Probe)>) -> BTreeMap<String, Probe> {
        list.into_iter().map(|(name, probe)| (name.to_owned(), probe)).collect()
    }

    #[test]
    fn only_the_first_founder_forms_the_group_and_only_with_all() {
        let all = probes(vec![("a", probe(1)), ("b", probe(2)), ("c", probe(3))]);
        let two = probes(vec![("a", probe(1)), ("c", probe(3))]);
        let members = [(MetaId(1), node("a", 1)), (MetaId(2), node("b", 2)), (MetaId(3), node("c", 3))];
        let step = first_step("a", Incarnation(1), &founders(), &all);
        assert_eq!(step, Step::Form(members.into_iter().collect()));
        assert!(matches!(first_step("b", Incarnation(2), &founders(), &all), Step::Wait(_)));
        assert!(matches!(first_step("a", Incarnation(1), &founders(), &two), Step::Wait(_)));
        assert!(matches!(first_step("d", Incarnation(4), &founders(), &all), Step::Wait(_)));
    }

    #[test]
    fn a_formed_group_is_joined_never_formed_again() {
        let formed: BTreeMap<MetaId, MetaNode> =
            [(MetaId(1), node("a", 1)), (MetaId(2), node("b", 2)), (MetaId(3), node("c", 3))].into();
        let b = Probe { incarnation: Incarnation(2), members: formed, used: true };
        let answers = probes(vec![("a", probe(9)), ("b", b), ("c", probe(3))]);
        assert_eq!(first_step("c", Incarnation(3), &founders(), &answers), Step::Start(MetaId(3)));
        assert_eq!(first_step("a", Incarnation(9), &founders(), &answers), Step::Join, "a lost its disk");
        assert_eq!(first_step("d", Incarnation(7), &founders(), &answers), Step::Join);
    }

    #[test]
    fn a_founder_that_starts_again_keeps_the_group_from_being_formed_anew() {
        let starting = Probe { used: true, ..probe(2) };
        let answers = probes(vec![("a", probe(9)), ("b", starting), ("c", probe(3))]);
        let step = first_step("a", Incarnation(9), &founders(), &answers);
        assert!(matches!(step, Step::Wait(_)), "{step:?} under ids that b voted under");
    }

    #[test]
    fn a_new_directory_replaces_the_old_one_of_its_name() {
        let nodes: BTreeMap<MetaId, MetaNode> = [
            (MetaId(1), node("a", 1)),
            (MetaId(2), node("b", 2)),
            (MetaId(3), node("c", 3)),
            (MetaId(4), node("a", 9)),
        ]
        .into();
        let ids = |ids: &[u64]| ids.iter().copied().map(MetaId).collect::<BTreeSet<_>>();
        let voters = ids(&[1, 2, 3]);
        let none = BTreeSet::new();
        assert_eq!(next_voters(&voters, &nodes, &ids(&[]), &none), None, "not before it has caught up");
        assert_eq!(leaving(&voters, &nodes, &none), ids(&[]));
        assert_eq!(next_voters(&voters, &nodes, &ids(&[4]), &none), Some(ids(&[2, 3, 4])));
        assert_eq!(leaving(&ids(&[2, 3, 4]), &nodes, &none), ids(&[1]));
        let caught_up = ids(&[1, 4]);
        assert_eq!(next_voters(&ids(&[2, 3, 4]), &nodes, &caught_up, &none), None, "the old one stays out");
    }

    #[test]
    fn a_removed_node_votes_no_more_unless_nobody_else_does() {
        let nodes: BTreeMap<MetaId, MetaNode> = [(MetaId(1), node("a", 1)), (MetaId(2), node("b", 2))].into();
        let all: BTreeSet<MetaId> = nodes.keys().copied().collect();
        let next = next_voters(&all, &nodes, &all, &["b"].into());
        assert_eq!(next, Some([MetaId(1)].into()));
        assert_eq!(next_voters(&all, &nodes, &all, &["a", "b"].into()), None);
    }
}
