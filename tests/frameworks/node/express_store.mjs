// A store of express-session: writes sessions, or tells which of some it still finds.
// Standard input: {store, url, action: "write" | "find", sessions: {id: seconds to live}, disableTTL?}.
import { promisify } from "node:util";
import session from "express-session";
import { readFileSync } from "node:fs";

const ask = JSON.parse(readFileSync(0, "utf8"));
const stores = {
  async "connect-pg-simple"(url) {
    const PgStore = (await import("connect-pg-simple")).default(session);
    const store = new PgStore({ conString: url, createTableIfMissing: true, pruneSessionInterval: false });
    return [store, () => store.close()];
  },
  async "express-mysql-session"(url) {
    const MySQLStore = (await import("express-mysql-session")).default(session);
    const { hostname, port, username, pathname } = new URL(url);
    const store = new MySQLStore({
      host: hostname, port: Number(port), user: username, database: pathname.slice(1), clearExpired: false,
    });
    await store.onReady();
    return [store, () => store.close()];
  },
  async "connect-redis"(url) {
    const { RedisStore } = await import("connect-redis");
    const { createClient } = await import("redis");
    const client = await createClient({ url }).connect();
    const store = new RedisStore({ client, disableTTL: Boolean(ask.disableTTL) });
    return [store, () => client.close()];
  },
};

const [store, close] = await stores[ask.store](ask.url);
const [set, get] = [promisify(store.set.bind(store)), promisify(store.get.bind(store))];
const found = [];
for (const [id, seconds] of Object.entries(ask.sessions)) {
  if (ask.action === "write") {
    // As express-session hands a session to its store: with a cookie, and what passport keeps about the user.
    const cookie = new session.Cookie({ maxAge: seconds * 1000 });
    await set(id, { cookie: cookie.toJSON(), passport: { user: { id: `user of ${id}` } } });
  } else {
    const content = await get(id);
    if (content && content.passport.user.id === `user of ${id}`) found.push(id);
  }
}
await close();
console.log(JSON.stringify(found));
