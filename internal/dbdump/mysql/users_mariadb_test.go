package mysql

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTextsOfAccountsAreQuotedOnce(t *testing.T) {
	t.Parallel()
	const privileges = `{"authentication_string":"","auth_or":[{"plugin":"unix_socket","authentication_string":"o'd\\"},{}],"x509_subject":"'","x509_issuer":"plain","ssl_cipher":""}`
	const quoted = "CREATE USER `u`@`%` IDENTIFIED VIA unix_socket USING 'o''d\\\\' REQUIRE ISSUER 'plain' SUBJECT ''''"
	const raw = "CREATE USER `u`@`%` IDENTIFIED VIA unix_socket USING 'o'd\\' REQUIRE ISSUER 'plain' SUBJECT '''"
	for _, create := range []string{quoted, raw} {
		got, err := quoteTexts(create, privileges)
		require.NoError(t, err)
		require.Equal(t, quoted, got)
	}
	// A demand that was lifted leaves its text behind.
	lifted := "CREATE USER `u`@`%` IDENTIFIED VIA unix_socket USING 'o''d\\\\'"
	got, err := quoteTexts(lifted, privileges)
	require.NoError(t, err)
	require.Equal(t, lifted, got)

	_, err = quoteTexts("CREATE USER `u`@`%` REQUIRE SUBJECT 'another'", privileges)
	require.ErrorContains(t, err, "SUBJECT")
	_, err = quoteTexts(raw, "{")
	require.ErrorContains(t, err, "global_priv")
}
