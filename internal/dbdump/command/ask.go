package command

import (
	"bytes"
	"context"
	"fmt"
)

// answerBytes bounds what an answer may hold.
const answerBytes = 64 << 10

// Ask runs a program that answers in a few words, to the proven end of its
// answer, and returns that. what names the question in errors.
func (o Options) Ask(ctx context.Context, what string, argv []string) (string, error) {
	e := &Engine{opts: o, shell: "sh"}
	r := e.begin(ctx, what)
	defer r.end()
	var answer bounded
	if err := r.program(argv, nil, &answer); err != nil {
		// Many programs complain on standard output.
		_, _ = r.said.Write(answer.text.Bytes()) // a tail takes everything
		return "", r.explain(err)
	}
	return answer.text.String(), nil
}

// bounded takes an answer.
type bounded struct{ text bytes.Buffer }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.text.Len()+len(p) > answerBytes {
		return 0, fmt.Errorf("the answer has more than %d bytes", answerBytes)
	}
	return b.text.Write(p)
}
