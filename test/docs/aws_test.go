package docs

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"keepset/test/servers"
)

// asAWS makes the test's program the `aws` of a page's commands.
const asAWS = "KEEPSET_TEST_AS_AWS"

// awsMain is `aws s3api`, for exactly the commands of docs/write-once.md, so that a test needs no such program.
// The requests are those that it sends, to a real server. It returns the exit code.
func awsMain(args []string) int {
	if err := awsCommand(context.Background(), args); err != nil {
		fmt.Fprintln(os.Stderr, "aws:", err)
		return 1
	}
	return 0
}

// The two of --query that are understood: what a listing shows, and what hides an object, key and version in a line.
const (
	shown   = "Versions[?IsLatest].[Key]"
	markers = "DeleteMarkers[?IsLatest].[Key,VersionId]"
)

func awsCommand(ctx context.Context, args []string) error {
	if len(args) < 2 || args[0] != "s3api" {
		return fmt.Errorf("not understood: %q", args)
	}
	flags := map[string]string{}
	for rest := args[2:]; len(rest) > 0; {
		if rest[0] == "--object-lock-enabled-for-bucket" {
			flags[rest[0]], rest = "true", rest[1:]
			continue
		}
		if len(rest) < 2 {
			return fmt.Errorf("%s has no value", rest[0])
		}
		flags[rest[0]], rest = rest[1], rest[2:]
	}
	server := servers.S3Server{Endpoint: os.Getenv("AWS_ENDPOINT_URL_S3"), Region: os.Getenv("AWS_REGION")}
	q := servers.S3Request{
		Access: os.Getenv("AWS_ACCESS_KEY_ID"), Secret: os.Getenv("AWS_SECRET_ACCESS_KEY"), Path: "/" + flags["--bucket"],
		Method: http.MethodPut, Header: map[string]string{},
	}
	switch args[1] {
	case "create-bucket":
		q.Header["X-Amz-Bucket-Object-Lock-Enabled"] = flags["--object-lock-enabled-for-bucket"]
	case "put-bucket-policy":
		policy, err := os.ReadFile(strings.TrimPrefix(flags["--policy"], "file://"))
		if err != nil {
			return err
		}
		q.Query, q.Body = "policy", string(policy)
	case "delete-object":
		q.Method, q.Path = http.MethodDelete, q.Path+"/"+flags["--key"]
		if version := flags["--version-id"]; version != "" {
			q.Query = "versionId=" + url.QueryEscape(version)
		}
	case "list-object-versions":
		q.Method, q.Query = http.MethodGet, "versions=&prefix="+url.QueryEscape(flags["--prefix"])
	default:
		return fmt.Errorf("not understood: %q", args)
	}
	answer, err := server.Ask(ctx, q)
	if err != nil {
		return err
	}
	if answer.Status >= http.StatusMultipleChoices {
		return fmt.Errorf("%s: %s", args[1], answer.Body)
	}
	if args[1] == "list-object-versions" {
		return printVersions(answer.Body, flags)
	}
	return nil
}

type awsVersion struct {
	Key       string
	VersionID string `xml:"VersionId"`
	IsLatest  bool
}

func printVersions(body string, flags map[string]string) error {
	var page struct {
		IsTruncated bool
		Versions    []awsVersion `xml:"Version"`
		Markers     []awsVersion `xml:"DeleteMarker"`
	}
	if err := xml.Unmarshal([]byte(body), &page); err != nil {
		return err
	}
	list, line := page.Markers, func(v awsVersion) string { return v.Key + "\t" + v.VersionID }
	switch query := flags["--query"]; {
	case page.IsTruncated:
		return fmt.Errorf("more than a page")
	case flags["--output"] != "text" || query != shown && query != markers:
		return fmt.Errorf("not understood: %q", flags)
	case query == shown:
		list, line = page.Versions, func(v awsVersion) string { return v.Key }
	}
	for _, v := range list {
		if v.IsLatest {
			if _, err := fmt.Fprintln(os.Stdout, line(v)); err != nil {
				return err
			}
		}
	}
	return nil
}
