// What is kept in this browser (localStorage) or in this tab alone (sessionStorage). A browser that allows neither only forgets.

export function read(store, name) {
  try {
    return JSON.parse(window[store].getItem(`dualgrain.${name}`));
  } catch {
    return null;
  }
}

export function write(store, name, value) {
  try {
    window[store].setItem(`dualgrain.${name}`, JSON.stringify(value));
  } catch { /* full or forbidden */ }
}
