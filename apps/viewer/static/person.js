// What the server tells people apart by: a random name for this browser tab, which survives a reload.

function name() {
  const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (n) => n.toString(16).padStart(2, "0")).join("");
  try {
    return (sessionStorage.person ||= fresh());
  } catch {
    return fresh(); // no storage: a name for this page alone
  }
}

export const person = name();
