#!/bin/sh
# The page, as a program of httpd's (what it runs for a folder without index.html): the greeting, who answers, and that the secret and the diary are there.
printf 'Content-Type: text/plain; charset=utf-8\r\n\r\n'
cat /www/greeting.txt
echo "container: $(hostname)"
echo "signed:    $(sha256sum </run/secrets/key | cut -c1-16)"
echo "diary:     $(wc -l </diary/lines 2>/dev/null || echo 0) lines"
