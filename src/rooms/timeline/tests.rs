//! Pagination tokens and pages.

use super::*;

fn live(position: u64) -> TimelinePosition {
    TimelinePosition::live(Position::from_u64(position))
}

#[test]
fn tokens_read_as_they_were_written() {
    let old = TimelinePosition { line: 0, position: Position::from_u64(1 << 40) };
    for token in [
        PaginationToken::START,
        PaginationToken::after(live(7)),
        PaginationToken::before(live(7)),
        PaginationToken::after(old),
        PaginationToken::before(old),
        PaginationToken::live(Position::MAX),
    ] {
        assert_eq!(token.to_string().parse::<PaginationToken>().unwrap(), token, "{token}");
    }
    assert_eq!(PaginationToken::after(live(7)).to_string(), "t1_7");
    assert_eq!(PaginationToken::before(live(7)).to_string(), "p1_7");
}

#[test]
fn a_sync_token_is_the_place_after_its_position() {
    let token: PaginationToken = "sa5_42".parse().unwrap();
    assert_eq!(token, PaginationToken::after(live(42)));
}

#[test]
fn garbage_is_no_token() {
    for text in [
        "",
        "t",
        "p",
        "s",
        "t1",
        "t1_",
        "t_7",
        "t2_7",
        "t1_7_8",
        "t1_-7",
        "t1_+7",
        "t1_7 ",
        " t1_7",
        "x1_7",
        "T1_7",
        "sa5_",
        "s_7",
        "s+5_7",
        "sa5_4x",
        "s11111111111111111_1",
        // The numbers of positions that are not known yet, and more than a number can be.
        "t1_18446744073709551615",
        "t1_18446744073709486080",
        "t1_99999999999999999999",
        "s1_18446744073709551615",
    ] {
        let error = text.parse::<PaginationToken>().unwrap_err();
        assert_eq!((error.status.as_u16(), &*error.errcode), (400, "M_INVALID_PARAM"), "{text}");
    }
}

#[test]
fn a_token_between_two_entries_is_the_same_place_from_both_sides() {
    let (two, three) = (live(2), live(3));
    // Going back from just before 3, and from just after 2, begins with 2.
    assert_eq!(PaginationToken::before(three).upper(), Bound::Excluded(three));
    assert_eq!(PaginationToken::after(two).upper(), Bound::Included(two));
    // Going on from there begins with 3.
    assert_eq!(PaginationToken::before(three).lower(), Bound::Included(three));
    assert_eq!(PaginationToken::after(two).lower(), Bound::Excluded(two));
}

#[test]
fn empty_ranges_are_known_before_the_store_is_asked() {
    use Bound::{Excluded, Included, Unbounded};
    let (two, three) = (live(2), live(3));
    for (from, to, empty) in [
        (Included(two), Included(two), false),
        (Included(three), Included(two), true),
        (Included(two), Excluded(two), true),
        (Excluded(two), Included(two), true),
        (Excluded(two), Excluded(three), false),
        (Unbounded, Excluded(two), false),
        (Included(two), Unbounded, false),
        (Unbounded, Unbounded, false),
    ] {
        assert_eq!(is_empty(from, to), empty, "{from:?} {to:?}");
    }
}
