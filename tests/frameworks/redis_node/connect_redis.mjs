// Sessions of express-session in connect-redis. Standard input: {url, action, disableTTL, sessions}.
//   write: id -> seconds until the cookie expires; prolong: likewise, as a request without changes does.
//   find: answers the ids that the framework still loads, with their content.
import { readFileSync } from "node:fs";
import { RedisStore } from "connect-redis";
import session from "express-session";
import { createClient } from "redis";

const ask = JSON.parse(readFileSync(0, "utf8"));
// A session is written an hour ago, when its cookie had all its time before it: the store refuses one that has none.
const AGO = ask.action === "write" ? 3600 : 0;
const now = Date.now.bind(Date);
Date.now = () => now() - AGO * 1000;

const client = await createClient({ url: ask.url }).connect();
const store = new RedisStore({ client, disableTTL: ask.disableTTL });

const call = (method, ...values) =>
  new Promise((resolve, reject) =>
    store[method](...values, (error, value) => (error ? reject(error) : resolve(value))),
  );

const content = (id, seconds) => {
  const cookie = new session.Cookie({ maxAge: (AGO + seconds) * 1000 });
  return { cookie, passport: { user: "u1" }, cart: id };
};

const found = [];
for (const [id, seconds] of Object.entries(ask.sessions)) {
  if (ask.action === "write") await call("set", id, content(id, seconds));
  if (ask.action === "prolong") await call("touch", id, content(id, seconds));
  if (ask.action === "find" && (await call("get", id))?.cart === id) found.push(id);
}
await client.quit();
console.log(JSON.stringify(found));
