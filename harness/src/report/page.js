for(const table of document.querySelectorAll('table'))table.querySelectorAll('th').forEach((head,column)=>{
const button=document.createElement('button');button.type='button';button.append(...head.childNodes);head.append(button);
const text=row=>row.cells[column].textContent.trim();
const number=row=>{const found=/^-?[\d,]*\.?\d+/.exec(text(row));return found?parseFloat(found[0].replace(/,/g,'')):NaN};
button.onclick=()=>{const down=head.getAttribute('aria-sort')==='ascending',sign=down?-1:1;
const words=(a,b)=>text(a).localeCompare(text(b),'en',{numeric:true});
const numbers=(a,b)=>{const x=number(a),y=number(b);if(isNaN(x)||isNaN(y))return isNaN(x)-isNaN(y)||sign*words(a,b);return sign*(x-y)};
const order=head.classList.contains('number')?numbers:(a,b)=>sign*words(a,b);
table.querySelectorAll('th').forEach(other=>other.removeAttribute('aria-sort'));
head.setAttribute('aria-sort',down?'descending':'ascending');
table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order))}});
// A link leads into what is folded, and a printer shows all.
const unfold=place=>place?.querySelectorAll('details').forEach(part=>part.open=true);
addEventListener('hashchange',()=>{const place=document.getElementById(decodeURIComponent(location.hash.slice(1)));
if(place?.closest('#tables,#method'))unfold(place)});
addEventListener('beforeprint',()=>unfold(document.querySelector('main')));
