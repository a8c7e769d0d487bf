package exectest

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
	"k8s.io/apimachinery/pkg/util/remotecommand"
)

// openWebSocket speaks v5.channel.k8s.io: binary messages, whose first byte is
// the channel; channel 255 closes the one that it names.
func openWebSocket(w http.ResponseWriter, r *http.Request) (*channels, error) {
	upgrader := websocket.Upgrader{Subprotocols: []string{remotecommand.StreamProtocolV5Name}, CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	channel := func(id byte) io.Writer { return &socketChannel{mu: &mu, conn: conn, id: id} }
	stdin, pump := io.Pipe()
	go readSocket(conn, pump)
	c := &channels{
		stdout: channel(remotecommand.StreamStdOut), stderr: channel(remotecommand.StreamStdErr), status: channel(remotecommand.StreamErr),
		end: func() {
			mu.Lock()
			defer mu.Unlock()
			bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
			_ = errors.Join(conn.WriteMessage(websocket.CloseMessage, bye), stdin.Close()) // the client may have gone
		},
		drop: func() { _ = errors.Join(conn.NetConn().Close(), stdin.Close()) }, // likewise
	}
	if r.URL.Query().Get("stdin") == "true" {
		c.stdin = stdin
	}
	return c, nil
}

// readSocket takes the client's messages until it goes: the end of the input,
// as the runtimes have it.
func readSocket(conn *websocket.Conn, stdin *io.PipeWriter) {
	defer func() { _ = errors.Join(stdin.Close(), conn.Close()) }() // a pipe's end, and a connection that has ended
	for {
		_, message, err := conn.ReadMessage()
		if err != nil || len(message) == 0 {
			return
		}
		switch message[0] {
		case remotecommand.StreamStdIn:
			if _, err := stdin.Write(message[1:]); err != nil {
				_, _ = io.Copy(io.Discard, nothing{conn})
				return
			}
		case remotecommand.StreamClose:
			_ = stdin.Close() // a pipe's end: always nil
		}
	}
}

// nothing reads messages until there are none; it has no bytes.
type nothing struct{ conn *websocket.Conn }

// Read implements io.Reader.
func (n nothing) Read([]byte) (int, error) {
	_, _, err := n.conn.ReadMessage()
	return 0, err
}

// socketChannel writes messages of one channel.
type socketChannel struct {
	mu   *sync.Mutex
	conn *websocket.Conn
	id   byte
}

// Write implements io.Writer.
func (c *socketChannel) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.conn.WriteMessage(websocket.BinaryMessage, append([]byte{c.id}, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}
