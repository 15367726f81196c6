//! The rules as a table (attack case T56), written from the specification's text by hand.

use super::{HistoryVisibility::*, Membership::*, *};

/// A reader's membership before the invite, between invite and join, after the join, after the
/// leave; and, for each of these times, whether the reader joined later.
type Story = ([Membership; 4], [bool; 4]);

const STORIES: [(&str, Story); 6] = [
    ("joined", ([None, Invite, Join, Join], [true, true, false, false])),
    ("invited", ([None, Invite, Invite, Invite], [false; 4])),
    ("left", ([None, Invite, Join, Leave], [true, true, false, false])),
    ("banned", ([None, Invite, Join, Ban], [true, true, false, false])),
    ("never", ([None; 4], [false; 4])),
    // A user of another server is judged by the same state.
    ("other server", ([None, None, Join, Join], [true, true, false, false])),
];

/// For each visibility and reader: which of the four times may be seen.
const EXPECTED: [(HistoryVisibility, [&str; 6]); 4] = [
    (WorldReadable, ["yyyy", "yyyy", "yyyy", "yyyy", "yyyy", "yyyy"]),
    (Shared, ["yyyy", "nnnn", "yyyn", "yyyn", "nnnn", "yyyy"]),
    (Invited, ["nyyy", "nyyy", "nyyn", "nyyn", "nnnn", "nnyy"]),
    (Joined, ["nnyy", "nnnn", "nnyn", "nnyn", "nnnn", "nnyy"]),
];

#[test]
fn t56_events_are_seen_as_the_rules_say() {
    for (visibility, rows) in EXPECTED {
        for ((reader, (memberships, joined_since)), expected) in STORIES.into_iter().zip(rows) {
            let seen: String = (0..4)
                .map(|time| {
                    let membership = (memberships[time], memberships[time]);
                    visible((visibility, visibility), membership, joined_since[time])
                })
                .map(|seen| if seen { 'y' } else { 'n' })
                .collect();
            assert_eq!(seen, expected, "{visibility:?}, {reader}");
        }
    }
}

/// Every combination, against the five rules read one after another.
#[test]
fn t56_the_full_matrix() {
    let visibilities = [WorldReadable, Shared, Invited, Joined];
    let memberships = [None, Ban, Invite, Join, Knock, Leave];
    let rules = |visibility, membership, joined_since: bool| {
        if visibility == WorldReadable {
            return true;
        }
        if membership == Join {
            return true;
        }
        if visibility == Shared && joined_since {
            return true;
        }
        membership == Invite && visibility == Invited
    };
    let mut cells = 0;
    for before in visibilities {
        for after in visibilities {
            for was in memberships {
                for is in memberships {
                    for joined_since in [false, true] {
                        let expected = rules(before, was, joined_since)
                            || rules(before, is, joined_since)
                            || rules(after, was, joined_since)
                            || rules(after, is, joined_since);
                        let seen = visible((before, after), (was, is), joined_since);
                        assert_eq!(
                            seen, expected,
                            "{before:?} to {after:?}, {was:?} to {is:?}, {joined_since}"
                        );
                        cells += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cells, 1152);
}

#[test]
fn own_member_events_are_seen_from_either_side() {
    let joined = (Joined, Joined);
    for (was, is, seen) in [
        (None, Join, true),
        (Invite, Join, true),
        (Join, Leave, true),
        (Join, Ban, true),
        (Leave, Ban, false),
        (Invite, Leave, false),
        (None, Invite, false),
    ] {
        assert_eq!(visible(joined, (was, is), false), seen, "{was:?} to {is:?}");
    }
}

#[test]
fn changes_of_the_visibility_are_seen_from_either_side() {
    for change in [(WorldReadable, Joined), (Joined, WorldReadable)] {
        assert!(visible(change, (None, None), false), "{change:?}");
    }
    assert!(!visible((Shared, Joined), (None, None), false));
}

#[test]
fn unknown_visibilities_are_shared() {
    for (name, visibility) in [
        ("world_readable", WorldReadable),
        ("shared", Shared),
        ("invited", Invited),
        ("joined", Joined),
        ("", Shared),
        ("World_Readable", Shared),
        ("org.example.secret", Shared),
    ] {
        assert_eq!(HistoryVisibility::from_name(name), visibility, "{name}");
    }
}
