//! For each key of a plan file a plan that it changes.

/// A key as the page has it, with its table's heading in front, a plan without it, and the same plan with it.
pub(crate) type Case = (&'static str, &'static str, &'static str);

const TWO_ZONES: &str = "fleet.zones = { a = 50, b = 50 }";
const ONE_IN_FIVE_FAILS: &str =
    "fleet.profile = [{ kind = \"fails\", rate = 100, share = 20 }, { kind = \"well\", share = 80 }]";

/// Keys beside those of tables.
pub(crate) const TOP: [Case; 14] = [
    ("seed", "", "seed = 2"),
    (
        "begins",
        "rollout.window = { zone = \"UTC\", from = \"09:00\", until = \"10:00\" }",
        "begins = \"2026-03-02T09:30:00Z\"",
    ),
    ("length", "", "length = \"1 min\""),
    ("fleet.agents", "", "fleet.agents = 50"),
    ("fleet.zones", "rollout.in_flight_per_zone = 1", TWO_ZONES),
    (
        "fleet.labels",
        "rollout.strategy = { kind = \"label-rings\", key = \"ring\", rings = [\"a\"] }",
        "fleet.labels.ring = { a = 10, b = 90 }",
    ),
    (
        "fleet.versions",
        "fleet.profile = [{ kind = \"fails-on-version\", version = \"1\", rate = 100, share = 100 }]",
        "fleet.versions = { \"1\" = 50, \"2\" = 50 }",
    ),
    ("fleet.configs", "", "fleet.configs = { v1 = 50, v2 = 50 }"),
    (
        "fleet.files",
        "fleet.configs = { v1 = 100 }\nrollout.file = \"collector/v3.yaml\"",
        "fleet.files = { v1 = \"collector/v1.yaml\" }",
    ),
    ("fleet.profile", "", "fleet.profile = [{ kind = \"polling\", interval = \"30 s\", share = 100 }]"),
    ("fleet.joins", "", "fleet.joins = { percent = 20, after = \"1 min .. 10 min\" }"),
    (
        "fleet.leaves",
        "rollout.leavers = \"revert\"",
        "fleet.leaves = { percent = 20, after = \"1 min .. 10 min\" }",
    ),
    ("act", "", "act = [{ at = \"1 min\", do = \"abort\" }]"),
    (
        "operator.reacts_after",
        "rollout.strategy = { kind = \"manual\", size = 30 }",
        "operator.reacts_after = \"5 min\"",
    ),
];

/// Keys of `rollout`.
pub(crate) const ROLLOUT: [Case; 21] = [
    ("title", "", "rollout.title = \"v3\""),
    (
        "file",
        "fleet.configs = { v1 = 100 }\nfleet.files = { v1 = \"collector/v1.yaml\" }",
        "rollout.file = \"collector/v3.yaml\"",
    ),
    ("selector", TWO_ZONES, "rollout.selector = \"zone=a\""),
    ("strategy", "", "rollout.strategy = { kind = \"batches\", size = 30 }"),
    ("order", "", "rollout.order = \"oldest\""),
    ("stratify", TWO_ZONES, "rollout.stratify = [\"label:zone\"]"),
    ("in_flight_per_zone", TWO_ZONES, "rollout.in_flight_per_zone = 1"),
    ("rate", "", "rollout.rate = { per_minute = 1 }"),
    ("window", "", "rollout.window = { zone = \"UTC\", from = \"12:00\", until = \"17:00\" }"),
    ("starts_after", "", "rollout.starts_after = \"1 h\""),
    ("expires_after", "", "rollout.expires_after = \"10 min\""),
    ("bake", "", "rollout.bake = \"1 min\""),
    (
        "progress",
        "fleet.profile = [{ kind = \"slow\", delay = \"4 min\", share = 100 }]",
        "rollout.progress = \"1 min\"",
    ),
    (
        "late_joiners",
        "fleet.joins = { percent = 20, after = \"1 min .. 10 min\" }",
        "rollout.late_joiners = \"snapshot\"",
    ),
    (
        "leavers",
        "fleet.leaves = { percent = 20, after = \"20 min .. 40 min\" }",
        "rollout.leavers = \"revert\"",
    ),
    (
        "offline",
        "fleet.profile = [{ kind = \"offline\", returns = \"10 min\", share = 20 }, { kind = \"well\", share = 80 }]",
        "rollout.offline = \"exclude\"",
    ),
    (
        "unverified",
        "fleet.profile = [{ kind = \"mute\", share = 10 }, { kind = \"well\", share = 90 }]",
        "rollout.unverified = \"failure\"",
    ),
    (
        "fit",
        "rollout.gate = [{ kind = \"disconnect-ratio\", window = \"20 min\" }]",
        "rollout.fit = \"refuse\"",
    ),
    ("control_group", "", "rollout.control_group = 5"),
    ("gate", ONE_IN_FIVE_FAILS, "rollout.gate = [{ kind = \"apply-failed\", severity = \"observe\" }]"),
    ("reason", "rollout.strategy = { kind = \"all-at-once\" }", "rollout.reason = \"a fix\""),
];

/// Keys of `rollout.rate`.
pub(crate) const RATE: [Case; 5] = [
    ("per_minute", "", "rollout.rate.per_minute = 1"),
    ("per_hour", "", "rollout.rate.per_hour = 1"),
    ("in_flight", "", "rollout.rate.in_flight = 1"),
    ("touched", "", "rollout.rate.touched = 10"),
    ("fleet_percent_in_flight", "", "rollout.rate.fleet_percent_in_flight = 2"),
];

/// Keys of `rollout.window`.
pub(crate) const WINDOW: [Case; 4] = [
    (
        "zone",
        "rollout.window = { zone = \"UTC\", from = \"12:00\", until = \"17:00\" }",
        "rollout.window = { zone = \"Europe/Berlin\", from = \"12:00\", until = \"17:00\" }",
    ),
    (
        "days",
        "rollout.window = { zone = \"UTC\", from = \"12:00\", until = \"17:00\" }",
        "rollout.window = { zone = \"UTC\", days = \"sat,sun\", from = \"12:00\", until = \"17:00\" }",
    ),
    (
        "from",
        "rollout.window = { zone = \"UTC\", from = \"12:00\", until = \"17:00\" }",
        "rollout.window = { zone = \"UTC\", from = \"13:00\", until = \"17:00\" }",
    ),
    (
        "until",
        "rollout.window = { zone = \"UTC\", from = \"08:00\", until = \"17:00\" }",
        "rollout.window = { zone = \"UTC\", from = \"08:00\", until = \"08:01\" }",
    ),
];

/// Keys of strategies and their steps, but `kind`.
pub(crate) const STRATEGY: [Case; 12] = [
    (
        "size",
        "rollout.strategy = { kind = \"batches\", size = 30 }",
        "rollout.strategy = { kind = \"batches\", size = 20 }",
    ),
    (
        "steps",
        "rollout.strategy = { kind = \"canary\" }",
        "rollout.strategy = { kind = \"canary\", steps = [{ percent = 100 }] }",
    ),
    (
        "count",
        "rollout.strategy = { kind = \"canary\", steps = [{ count = 10 }, { percent = 100 }] }",
        "rollout.strategy = { kind = \"canary\", steps = [{ count = 20 }, { percent = 100 }] }",
    ),
    (
        "percent",
        "rollout.strategy = { kind = \"canary\", steps = [{ percent = 20 }, { percent = 100 }] }",
        "rollout.strategy = { kind = \"canary\", steps = [{ percent = 40 }, { percent = 100 }] }",
    ),
    (
        "at_most",
        "rollout.strategy = { kind = \"canary\", steps = [{ percent = 20 }, { percent = 100 }] }",
        "rollout.strategy = { kind = \"canary\", steps = [{ at_most = { count = 6, percent = 20 } }, { percent = 100 }] }",
    ),
    (
        "dwell",
        "rollout.strategy = { kind = \"canary\", steps = [{ percent = 20 }, { percent = 100 }] }",
        "rollout.strategy = { kind = \"canary\", steps = [{ percent = 20, dwell = \"1 h\" }, { percent = 100 }] }",
    ),
    (
        "approval",
        "rollout.strategy = { kind = \"canary\", steps = [{ percent = 20 }, { percent = 100 }] }",
        "rollout.strategy = { kind = \"canary\", steps = [{ percent = 20 }, { percent = 100, approval = true }] }",
    ),
    (
        "first",
        "rollout.strategy = { kind = \"exponential\", first = 1, factor = 2 }",
        "rollout.strategy = { kind = \"exponential\", first = 9, factor = 2 }",
    ),
    (
        "factor",
        "rollout.strategy = { kind = \"exponential\", first = 1, factor = 2 }",
        "rollout.strategy = { kind = \"exponential\", first = 1, factor = 9 }",
    ),
    (
        "key",
        "fleet.labels = { x = { a = 50, b = 50 }, y = { a = 10, b = 90 } }\nrollout.strategy = { kind = \"zone-by-zone\", key = \"x\" }",
        "rollout.strategy = { kind = \"zone-by-zone\", key = \"y\" }",
    ),
    (
        "rings",
        "fleet.labels = { x = { a = 50, b = 50 } }\nrollout.strategy = { kind = \"label-rings\", key = \"x\", rings = [\"a\"] }",
        "rollout.strategy = { kind = \"label-rings\", key = \"x\", rings = [\"b\"] }",
    ),
    (
        "until",
        "rollout.strategy = { kind = \"percentages\", until = [50, 100] }",
        "rollout.strategy = { kind = \"percentages\", until = [10, 100] }",
    ),
];

/// Keys of `rollout.gate`.
pub(crate) const GATE: [Case; 13] = [
    ("kind", ONE_IN_FIVE_FAILS, "rollout.gate = [{ kind = \"apply-failed\", count = 0 }]"),
    (
        "off",
        ONE_IN_FIVE_FAILS,
        "rollout.reason = \"a test\"\nrollout.gate = [{ kind = \"apply-failed\", off = true }]",
    ),
    (
        "percent",
        ONE_IN_FIVE_FAILS,
        "rollout.gate = [{ kind = \"apply-failed\", percent = { over = 90, at_least = 50 } }]",
    ),
    (
        "bound",
        ONE_IN_FIVE_FAILS,
        "rollout.gate = [{ kind = \"apply-failed\", bound = { over = 90, error = 1 } }]",
    ),
    (
        "sequential",
        ONE_IN_FIVE_FAILS,
        "rollout.gate = [{ kind = \"apply-failed\", sequential = { acceptable = 30, bad = 65, error = 1 } }]",
    ),
    ("count", ONE_IN_FIVE_FAILS, "rollout.gate = [{ kind = \"apply-failed\", count = 40 }]"),
    ("hard", ONE_IN_FIVE_FAILS, "rollout.gate = [{ kind = \"apply-failed\", hard = 40 }]"),
    (
        "window",
        "fleet.profile = [{ kind = \"crash-looping\", after = \"40 s\", share = 100 }]",
        "rollout.gate = [{ kind = \"crash-loop\", window = \"20 s\" }]",
    ),
    (
        "min_sample",
        "fleet.profile = [{ kind = \"fails\", rate = 100, share = 100 }]\nrollout.gate = [{ kind = \"apply-failed\", percent = { over = 1, at_least = 1 } }]",
        "rollout.gate = [{ kind = \"apply-failed\", percent = { over = 1, at_least = 1 }, min_sample = 50 }]",
    ),
    ("scopes", ONE_IN_FIVE_FAILS, "rollout.gate = [{ kind = \"apply-failed\", scopes = [\"wave\"] }]"),
    ("severity", ONE_IN_FIVE_FAILS, "rollout.gate = [{ kind = \"apply-failed\", severity = \"abort\" }]"),
    (
        "no_data",
        "fleet.profile = [{ kind = \"mute\", share = 100 }]",
        "rollout.gate = [{ kind = \"apply-failed\", no_data = \"pass\" }, { kind = \"unverified\", no_data = \"pass\", severity = \"observe\" }]",
    ),
    ("stretch", ONE_IN_FIVE_FAILS, "rollout.gate = [{ kind = \"apply-failed\", stretch = 0 }]"),
];

/// Keys of `fleet.profile`, but `kind`.
pub(crate) const PROFILE: [Case; 11] = [
    ("share", "fleet.profile = [{ kind = \"well\", share = 100 }]", ONE_IN_FIVE_FAILS),
    (
        "apply",
        "fleet.profile = [{ kind = \"well\", share = 100 }]",
        "fleet.profile = [{ kind = \"well\", share = 100, apply = \"1 s\" }]",
    ),
    (
        "fails_after",
        "fleet.profile = [{ kind = \"fails\", rate = 100, share = 100 }]",
        "fleet.profile = [{ kind = \"fails\", rate = 100, share = 100, fails_after = \"1 min\" }]",
    ),
    (
        "delay",
        "fleet.profile = [{ kind = \"slow\", delay = \"0 s\", share = 100 }]",
        "fleet.profile = [{ kind = \"slow\", delay = \"10 s\", share = 100 }]",
    ),
    (
        "stage",
        "fleet.profile = [{ kind = \"silent\", stage = \"offered\", share = 100 }]",
        "fleet.profile = [{ kind = \"silent\", stage = \"applying\", share = 100 }]",
    ),
    (
        "rate",
        "fleet.profile = [{ kind = \"fails\", rate = 0, share = 100 }]",
        "fleet.profile = [{ kind = \"fails\", rate = 100, share = 100 }]",
    ),
    (
        "version",
        "fleet.versions = { \"1\" = 50, \"2\" = 50 }\nfleet.profile = [{ kind = \"fails-on-version\", version = \"1\", rate = 100, share = 100 }]",
        "fleet.profile = [{ kind = \"fails-on-version\", version = \"3\", rate = 100, share = 100 }]",
    ),
    (
        "period",
        "fleet.profile = [{ kind = \"flapping\", period = \"100 s\", share = 100 }]",
        "fleet.profile = [{ kind = \"flapping\", period = \"1000 s\", share = 100 }]",
    ),
    (
        "after",
        "fleet.profile = [{ kind = \"self-rolling-back\", after = \"30 s\", share = 100 }]",
        "fleet.profile = [{ kind = \"self-rolling-back\", after = \"1 d\", share = 100 }]",
    ),
    (
        "interval",
        "fleet.profile = [{ kind = \"polling\", interval = \"30 s\", share = 100 }]",
        "fleet.profile = [{ kind = \"polling\", interval = \"5 min\", share = 100 }]",
    ),
    (
        "returns",
        "fleet.profile = [{ kind = \"offline\", returns = \"1 min\", share = 20 }, { kind = \"well\", share = 80 }]",
        "fleet.profile = [{ kind = \"offline\", returns = \"1 h\", share = 20 }, { kind = \"well\", share = 80 }]",
    ),
];

/// Keys of `act`.
pub(crate) const ACT: [Case; 5] = [
    ("at", "act = [{ at = \"1 min\", do = \"abort\" }]", "act = [{ at = \"3 min\", do = \"abort\" }]"),
    ("do", "act = [{ at = \"1 min\", do = \"abort\" }]", "act = [{ at = \"1 min\", do = \"pause\" }]"),
    (
        "by",
        "act = [{ at = \"15 s\", do = \"extend\", by = \"1 min\" }]",
        "act = [{ at = \"15 s\", do = \"extend\", by = \"9 min\" }]",
    ),
    (
        "gate",
        "fleet.profile = [{ kind = \"fails\", rate = 100, share = 20 }, { kind = \"well\", share = 80 }]\nact = [{ at = \"30 min\", do = \"waive\", gate = \"apply-failed\" }]",
        "act = [{ at = \"30 min\", do = \"waive\", gate = \"unhealthy\" }]",
    ),
    (
        "percent",
        "fleet.profile = [{ kind = \"fails\", rate = 100, share = 20 }, { kind = \"well\", share = 80 }]\nact = [{ at = \"30 min\", do = \"raise\", gate = \"apply-failed\", percent = { over = 30, at_least = 5 } }]",
        "act = [{ at = \"30 min\", do = \"raise\", gate = \"apply-failed\", percent = { over = 90, at_least = 5 } }]",
    ),
];
