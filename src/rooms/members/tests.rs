//! Members as each reader may see them.

use super::*;

#[test]
fn memberships_are_chosen_by_either_condition() {
    use Membership::{Ban, Invite, Join, Knock, Leave};
    for (is, is_not, expected) in [
        (None, None, vec![Ban, Invite, Join, Knock, Leave]),
        (Some(Join), None, vec![Join]),
        (None, Some(Leave), vec![Ban, Invite, Join, Knock]),
        (Some(Leave), Some(Leave), vec![Ban, Invite, Join, Knock, Leave]),
        (Some(Join), Some(Leave), vec![Ban, Invite, Join, Knock]),
        (Some(Ban), Some(Join), vec![Ban, Invite, Knock, Leave]),
    ] {
        assert_eq!(wanted_memberships(is, is_not), expected, "{is:?} {is_not:?}");
    }
}
