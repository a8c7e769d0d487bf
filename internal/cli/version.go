package cli

import "runtime/debug"

// release is set by a build that has no git checkout to take the version from:
// -ldflags "-X keepset/internal/cli.release=v1.2.3".
var release string

// Version is what the command "version" prints and what plans record: the
// release, or the tag or commit that Go's build recorded, or "dev".
func Version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
