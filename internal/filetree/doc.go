// Package filetree brings a directory into streams and back.
//
// [Save] walks a directory and writes tar archives; [Restore] reads them. What
// [Entry] is, an archive can hold: names of any bytes, owners, modes, times to
// the nanosecond, extended attributes, ACLs, hard links, symbolic links,
// sparse files, FIFOs and devices. All streams, one after the other in the
// order of their names, are one archive that GNU tar extracts:
//
//	tree/1-directories.tar      every directory, parents first
//	tree/2-files/000000.tar     regular files, some tens of MiB of them a stream
//	tree/3-others.tar           symbolic links, FIFOs, devices, further hard links, the archive's end
//
// Many files share a stream, because the list of streams is held in memory by
// whoever restores. Each file is a section of its stream ([Stream]) that is
// remembered under its path with what stat says of it, so that the next
// backup takes over unchanged files without opening them.
//
// Save promises that each file in the archive is what the directory held at
// some moment, or it says which ones are not: [record.Report] has doubts, such
// as files that could not be read, and warnings, such as files that vanished.
//
// Restore promises that nothing outside of its directory is touched, whatever
// the archive says and whoever moves things about in the directory meanwhile:
// every step goes from one open directory to the next and follows no link.
// Owners, modes and times of directories are set last.
//
// Memory is bounded, whatever the size of the tree: a buffer of 1 MiB and a few
// hundred names for each worker, 1024 names for each level of directories, and
// what is known of files with several links until all of these were seen.
package filetree

// Layout names what the streams mean, in [record.Report].
const Layout = "files/1"

// The streams.
const (
	directoriesStream = "tree/1-directories.tar"
	filesPrefix       = "tree/2-files/"
	othersStream      = "tree/3-others.tar"
)
