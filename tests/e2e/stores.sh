#!/bin/sh
# Runs PostgreSQL and Redis on all addresses until the first of them ends. Data goes to /data (an emptyDir).
set -eu
initdb -D /data/postgres -U postgres -A trust --no-locale -E UTF8 --no-sync >/data/initdb.log
echo 'host all all all trust' >>/data/postgres/pg_hba.conf
redis-server --databases 256 --bind 0.0.0.0 --protected-mode no --save '' --appendonly no --dir /data &
redis=$!
postgres -D /data/postgres -c listen_addresses='*' -c unix_socket_directories=/data -c fsync=off &
postgres=$!
trap 'kill "$redis" "$postgres" 2>/dev/null; wait; exit 0' TERM INT
while kill -0 "$redis" 2>/dev/null && kill -0 "$postgres" 2>/dev/null; do sleep 1; done
exit 1
