package timesten

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// findScript prints who runs it, and each instance with its owner. Images have
// had the user oracle (18.1) and timesten (22.1); an instance is in its home.
const findScript = `printf 'uid %s\n' "$(id -u)"
for i in /tt/home/*/instances/*; do
	[ -x "$i/bin/ttenv" ] || continue
	printf 'instance %s %s\n' "$(stat -c '%u %U' "$i")" "$i"
done
`

// instance is a TimesTen instance in the container, and who we are there.
type instance struct {
	path, owner string
	// ours: we run as its owner.
	ours bool
}

// command assembles a program of the instance, in its environment and as its
// owner. No login shell: what a profile prints would be in the output.
func (in instance) command(argv ...string) []string {
	program := append([]string{in.path + "/bin/ttenv"}, argv...)
	if in.ours {
		return program
	}
	return append([]string{"runuser", "-u", in.owner, "--"}, program...)
}

func (e *Engine) find(ctx context.Context) (instance, error) {
	text, err := e.opts.Ask(ctx, "find the TimesTen instance", []string{"sh", "-c", findScript})
	if err != nil {
		return instance{}, err
	}
	return parseInstance(text)
}

// parseInstance reads the answer of findScript.
func parseInstance(text string) (instance, error) {
	var uid, owner string
	var found []instance
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch word {
		case "uid":
			uid = rest
		case "instance":
			fields := strings.SplitN(rest, " ", 3)
			if len(fields) != 3 || fields[1] == "" || !strings.HasPrefix(fields[2], "/") {
				return instance{}, fmt.Errorf("find the TimesTen instance: %q is not understood", line)
			}
			owner = fields[0]
			found = append(found, instance{path: fields[2], owner: fields[1]})
		}
	}
	switch {
	case uid == "":
		return instance{}, errors.New("find the TimesTen instance: the container does not say who we are there")
	case len(found) == 0:
		return instance{}, errors.New("there is no TimesTen instance under /tt/home in the container: name the right one with --container")
	case len(found) > 1:
		return instance{}, fmt.Errorf("the container has %d TimesTen instances, %s and %s among them, and the preset is for one: give --command instead", len(found), found[0].path, found[1].path)
	}
	in := found[0]
	in.ours = uid == owner
	if !in.ours && uid != "0" {
		return instance{}, fmt.Errorf("programs run as user %s in the container, and only root can become %s, whose instance it is", uid, in.owner)
	}
	return in, nil
}
