// The floor under a validation over HTTP: net/http, JSON, SHA-256 and a map, nothing else. And a constant answer, which
// shows how much of that is the server and the client alone.
//
// go_floor ADDRESS KEYS: a line of the file KEYS is a key's text, its id, its organisation and its user.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strings"
)

type question struct {
	Key string `json:"key"`
}

type answer struct {
	Valid  bool   `json:"valid"`
	Code   string `json:"code"`
	KeyID  string `json:"key_id,omitempty"`
	OrgID  string `json:"org_id,omitempty"`
	UserID string `json:"user_id,omitempty"`
}

func load(path string) map[[32]byte]answer {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	known := map[[32]byte]answer{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		words := strings.Fields(lines.Text())
		known[sha256.Sum256([]byte(words[0]))] = answer{true, "VALID", words[1], words[2], words[3]}
	}
	return known
}

func write(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}

func main() {
	known := load(os.Args[2])
	http.HandleFunc("/v1/validations", func(w http.ResponseWriter, r *http.Request) {
		var asked question
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		found, ok := known[sha256.Sum256([]byte(asked.Key))]
		if !ok {
			found = answer{Code: "NOT_FOUND"}
		}
		body, _ := json.Marshal(found)
		write(w, body)
	})
	constant := []byte(`{"valid":true,"code":"VALID"}`)
	http.HandleFunc("/constant", func(w http.ResponseWriter, _ *http.Request) { write(w, constant) })
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
