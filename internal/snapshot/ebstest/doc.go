// Package ebstest is a fake of Amazon EC2's query protocol and of the EBS direct
// API, for tests of what cuts, restores and copies volumes. It is not AWS and
// never calls AWS: its volumes and snapshots are sparse image files in a
// directory, so that a test can mount a volume, write to it, snapshot it while
// it is written, and compare bit for bit what comes back.
//
// Its central type is [Server], which [Start] runs for a test and [New] makes
// for a program (test/ebsfake). One Server has several regions and accounts,
// told apart by the credential's scope in each request's signature, which is
// read and not verified. What goes wrong is said by a [Rule]; what went on is in
// the log, see [Server.Calls]. A test that wants to break every call of a
// program once lets it run, counts its calls, and runs it again as often, with
// a Rule that skips one call more each time:
//
//	n := len(s.Calls(scope))
//	for i := range n {
//		rule := s.Inject(ebstest.Rule{Scope: scope, Skip: i, Drop: true})
//		...
//		rule.Remove()
//	}
//
// A Rule can fail the call before it does anything, let it do its work and drop
// the reply, call back before or after the work (where the test kills its
// client), hold the reply until the rule is removed, delay it or damage it, and
// decide what becomes of the snapshot or volume that the call makes. A [Scope]
// by access key or tag keeps tests apart that share one fake.
//
// A cut copies the images while the call runs, and all volumes of one call
// between one Freeze and its thaw; see [Options]. The fake cannot stop who
// writes to a mounted image: a cut is of one point in time, as EBS gives it, if
// whoever mounts the volumes freezes their file systems then.
//
// So that a pod finds its credentials as it does in a real cluster with roles for
// service accounts, the fake also answers AssumeRoleWithWebIdentity of AWS's
// Security Token Service; see [RoleKey].
//
// # Documented by AWS, and done so here
//
//   - Parameters, replies and errors have the names, shapes and statuses that
//     aws-sdk-go-v2/service/ec2 v1.345.0 and service/ebs v1.43.5 write and read;
//     codes are those of
//     https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
//   - CreateVolume: sizes, IOPS, throughput and initialization rate by type, and
//     client tokens (same parameters: the same volume; others:
//     IdempotentParameterMismatch). A key that nobody has rights on is noticed
//     after the call. That the volume then vanishes, and that its token fails
//     from then on because its resource "is already deleted", is not documented
//     at CreateVolume but seen by many: kubernetes-sigs/aws-ebs-csi-driver #3010.
//   - CreateSnapshots: one start time, the boot volume and up to 40 others left
//     out; naming the boot volume among those fails. The volume's own tags come
//     only with CopyTagsFromSource.
//   - Five snapshots of a volume may be incomplete at once (one of st1 and sc1),
//     failed ones and deleted ones that still go on included; 15 seconds between
//     the starts of concurrent ones.
//   - A pending snapshot can be deleted, one that an AMI is registered of cannot.
//   - DescribeSnapshots leaves other accounts' snapshots out and fails for those
//     that do not exist. Filters are ANDed, their values ORed, with wildcards.
//   - EC2 is eventually consistent, where a Rule says so (Hide).
//   - EBS direct API: blocks of 512 KiB, pages of 100 to 10000 that may be
//     shorter, tokens that expire, checksums, ConflictException for a client token
//     with other parameters, and an error state for a snapshot that is left alone
//     for longer than its timeout. Encrypted excludes a parent. A changed block
//     has no FirstBlockToken when the first snapshot lacks it.
//   - Who gives tags to what he creates needs ec2:CreateTags besides; see
//     [Server.Allow].
//
// # Assumed
//
//   - What the texts of most errors are; the codes are what a client reads.
//   - DryRun is answered before the parameters are looked at.
//   - MaxResults below 5 is refused, and MaxResults together with IDs; the SDK's
//     comments no longer say so.
//   - That excluding a volume which is not attached, or all volumes, fails.
//   - Deleting, attaching and detaching take no time. A detached or deleted
//     volume is what it is at the next look, where AWS may show "deleting" for
//     minutes. Instances run from PutInstance to DeleteInstance.
//   - A changed block that the second snapshot lacks, because it was discarded,
//     has no SecondBlockToken. Blocks are compared by content and presence, where
//     EBS knows what was written: a block rewritten with the bytes that it had is
//     listed by EBS and not here.
//   - Snapshots are related (ListChangedBlocks) if they are of one volume, or of
//     volumes made from one another's snapshots with the same key. Copies are
//     related to nothing.
//   - The blocks of a snapshot that is not complete cannot be read.
//   - The aggregate checksum hashes the blocks' checksums as bytes, not as
//     base64; so does awslabs/coldsnap, which AWS accepts.
//   - CompleteSnapshot with a wrong count or checksum fails and changes nothing;
//     repeated after success it succeeds.
//   - A client token is remembered for ever.
//
// # The control interface
//
// Beside AWS's protocols the Server answers requests under /control/, with JSON
// both ways; package control has the types and a client in Go. An error is
// {"code","message","status"} with that status.
//
//	PUT    /control/instances                  {"id","zone","rootGiB"} -> instance; exists: unchanged
//	DELETE /control/instances/{id}             its volumes are detached, the boot volume is deleted
//	POST   /control/volumes                    {"zone","sizeGiB","type","iops","throughput","encrypted","kmsKey",
//	                                            "snapshot","tags":{},"clientToken"} -> volume
//	GET    /control/volumes                    -> [volume]
//	GET    /control/volumes/{id}               -> volume: as above and "id","state","instance","device","path"
//	DELETE /control/volumes/{id}               attached: 400 VolumeInUse
//	POST   /control/volumes/{id}/attachment    {"instance","device"} -> volume; device empty: a free one
//	DELETE /control/volumes/{id}/attachment
//	GET    /control/snapshots                  -> [snapshot]
//	POST   /control/outcomes/{id}              {"outcome":""|"held"|"failing"|"vanishing","message","progress","image"}
//	POST   /control/rules                      rule -> {"id"}; see control.Rule
//	GET    /control/rules/{id}                 -> {"id","fired"}
//	DELETE /control/rules/{id}
//	POST   /control/calls                      scope -> [call]; see control.Scope and control.Call
//	POST   /control/keys                       {"key","denied"}
//	POST   /control/rights                     {"accessKey","rights":["ec2:Describe*"]}
//	PUT    /control/freezer                    {"url"}
//
// All of them may name "account" and "region" where they make something. A
// volume that is not there is 400 InvalidVolume.NotFound. The durations of rules
// are in nanoseconds. Empty objects {} stand for nothing, both ways.
//
// The freezer is posted {"operation":"freeze","volumes":["vol-..."]} before a cut
// and the same with "thaw" after it, each at most 10 seconds, and answers 200 when it
// is done. Volumes that it has not mounted it ignores. Any other answer fails
// the cut, and thaw is posted all the same.
package ebstest
