// Checks proofs of the usage log with nothing of ours: with the notes and trees of the Go authors.
//
//	verify LOG_KEY WITNESS_KEY < proofs
//
// Reads .tlog-proof files that carry their entry as extra data, with a zero byte between two, and says of each
// "good", its index, the size of the log and the time of the cosignature, or "bad" and why.  The keys are
// verifier keys as in https://c2sp.org/signed-note.
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A witness verifies cosignatures, which golang.org/x/mod does not know: https://c2sp.org/tlog-cosignature.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
	at   uint64
}

func (w *witness) Name() string    { return w.name }
func (w *witness) KeyHash() uint32 { return w.hash }
func (w *witness) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	w.at = binary.BigEndian.Uint64(signature)
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", w.at, text)
	return ed25519.Verify(w.key, []byte(signed), signature[8:])
}

func check(proof string, log note.Verifier, seen *witness) (index, size int64, err error) {
	head, signed, _ := strings.Cut(proof, "\n\n")
	lines := strings.Split(head+"\n\n", "\n")
	entry, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	fmt.Sscanf(lines[2], "index %d", &index)
	again := fmt.Sprintf("c2sp.org/tlog-proof@v1\nextra %s\nindex %d\n", base64.StdEncoding.EncodeToString(entry), index)
	var hashes tlog.RecordProof
	for _, line := range lines[3 : len(lines)-2] {
		hash, _ := tlog.ParseHash(line)
		hashes = append(hashes, hash)
		again += hash.String() + "\n"
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(log, seen))
	if err != nil {
		return 0, 0, err
	}
	again += "\n" + opened.Text + "\n"
	for _, each := range opened.Sigs {
		signature, _ := base64.StdEncoding.DecodeString(each.Base64)
		again += "— " + each.Name + " " + base64.StdEncoding.EncodeToString(signature) + "\n"
	}
	text := strings.Split(opened.Text, "\n")
	if len(opened.Sigs) != 2 || again != proof || text[0] != log.Name() {
		return 0, 0, fmt.Errorf("not signed by both, not of this log, or not as it is written")
	}
	size, _ = strconv.ParseInt(text[1], 10, 64)
	root, _ := tlog.ParseHash(text[2])
	return index, size, tlog.CheckRecord(hashes, size, root, index, tlog.RecordHash(entry))
}

func main() {
	log, err := note.NewVerifier(os.Args[1])
	if err != nil {
		panic(err)
	}
	vkey := strings.SplitN(os.Args[2], "+", 3)
	hash, _ := strconv.ParseUint(vkey[1], 16, 32)
	key, _ := base64.StdEncoding.DecodeString(vkey[2])
	proofs, _ := io.ReadAll(os.Stdin)
	for _, proof := range strings.Split(string(proofs), "\x00") {
		seen := &witness{name: vkey[0], hash: uint32(hash), key: key[1:]}
		if index, size, err := check(proof, log, seen); err != nil {
			fmt.Println("bad", err)
		} else {
			fmt.Println("good", index, size, seen.at)
		}
	}
}
