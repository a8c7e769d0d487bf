// Package e2e tests Keepset where its users run it: on a real Kubernetes, with
// real databases and a real S3 server. `make cluster-up` starts what it needs;
// KEEPSET_SOAK=1 runs the long versions.
//
// Ten accidents catch the worst errors of a tool like this. Where they are:
//
//  1. A seed at half its load, killed, its Job deleted, the set scaled early:
//     TestSeedScaleUp, TestSeedKilledBetweenSteps, TestProof2Growth,
//     TestProof2Accidents.
//  2. A kill between the steps of a volume's hand-over, and
//  3. a volume that does not fit: TestSnapshotProof4KillHandOver. The steps of a
//     seed that is loaded are in TestSeedKilledBetweenSteps.
//  4. Backups and two restores at once, a killed holder: TestLeaseHasOneWinner,
//     TestLeaseOfKilledHolderExpires, TestCronJobsAreSuspendedAndResumed, TestProof3Recovery.
//  5. Edited parameters and a newer backup in the middle of a restore:
//     TestPlanIsFrozen, TestProof2Growth.
//  6. A user changed and an event fired after the backup: TestProof2Growth.
//  7. A set that configures its followers and clones from neighbours:
//     TestProof2ReplicatedMySQL, whose set is that of the EBS document, on dumps,
//     TestSnapshotProof1Story, the same on volume snapshots, and TestProof2Growth.
//  8. A purged log, a lost primary with newer followers: TestProof3Recovery.
//  9. An Indexed Job with an unreachable ordinal, a set scaled in the middle of
//     it: TestProof7FanOut.
//  10. The shipped Roles and NetworkPolicies, restricted pod security, a network
//     that denies by default, denials that name the rule: TestDefaultDenyNetwork,
//     TestProof2Growth, TestDenialsNameTheRule, TestOverlaysBuild.
package e2e
